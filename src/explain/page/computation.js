// How a number was computed, and where its gradient came from: Σ value × factor, summed here in f64.
"use strict";

// The taps of a window that lie on the image; and those by which an input pixel goes into windows.
const tapsOf = ({ kernel, stride, dilation, before, input }, y, x) => {
  const all = [];
  for (let ky = 0; ky < kernel[0]; ky++) {
    for (let kx = 0; kx < kernel[1]; kx++) {
      const iy = y * stride[0] + ky * dilation[0] - before[0],
        ix = x * stride[1] + kx * dilation[1] - before[1];
      if (iy >= 0 && ix >= 0 && iy < input[0] && ix < input[1]) all.push({ ky, kx, y: iy, x: ix });
    }
  }
  return all;
};
const outputsOf = ({ kernel, stride, dilation, before, output }, y, x) => {
  const all = [];
  for (let ky = 0; ky < kernel[0]; ky++) {
    for (let kx = 0; kx < kernel[1]; kx++) {
      const oy = (y + before[0] - ky * dilation[0]) / stride[0],
        ox = (x + before[1] - kx * dilation[1]) / stride[1];
      const whole = Number.isInteger(oy) && Number.isInteger(ox);
      if (whole && oy >= 0 && ox >= 0 && oy < output[0] && ox < output[1])
        all.push({ ky, kx, y: oy, x: ox });
    }
  }
  return all;
};

// Along one axis of a bilinear upsampling: what each output is made of. Coordinates are f32, as the engine's.
const interpolation = (input, output) => {
  const f = Math.fround,
    scale = f(input / output);
  return Array.from({ length: output }, (_, i) => {
    const s = f(f((i + 0.5) * scale) - 0.5),
      low = Math.floor(s),
      t = f(s - low);
    const index = (v) => Math.min(Math.max(v, 0), input - 1);
    const [a, b] = [index(low), index(Math.ceil(s))];
    return a === b || t === 0
      ? [[a, 1]]
      : [
          [a, 1 - t],
          [b, t],
        ];
  });
};

const activate = {
  linear: (x) => x,
  relu: (x) => Math.max(x, 0),
  relu6: (x) => Math.min(Math.max(x, 0), 6),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
};
// From what an activation made.
const slope = {
  linear: () => 1,
  softmax: () => 1,
  relu: (y) => +(y > 0),
  relu6: (y) => +(y > 0 && y < 6),
  sigmoid: (y) => y * (1 - y),
  tanh: (y) => 1 - y * y,
};
const isActivation = (layer) => layer.kind === "Activation" || layer.kind === "ReLU";
const makesProbabilities = (layer) => layer.activation === "sigmoid" || layer.activation === "softmax";

// Which input a channel of a concatenation is from, and which of its channels it is.
const concatenated = (layer, channel) => {
  for (const index of layer.inputs) {
    if (channel < layers[index].sides[2]) return [layers[index], channel];
    channel -= layers[index].sides[2];
  }
};

const termsOf = (layer, y, x, channel) => {
  if (layer.kind === "InputLayer") return null;
  const input = layers[layer.inputs[0]],
    [, width, count] = input.sides;
  const place = layer.place.get(channel),
    { weights, bias, norm } = layer.numbers;
  const term = (from, y, x, channel, factor, tap) => ({
    layer: from,
    y,
    x,
    channel,
    factor,
    tap,
    value: valueAt(from, y * from.sides[1] + x, channel),
  });
  const taps = () => tapsOf(layer.windows, y, x);
  const ownBias = bias ? part(bias)[place] : 0;
  const shown = layer.channels.length;
  switch (layer.kind) {
    case "Conv2D": {
      const [kh, kw] = layer.windows.kernel,
        own = part(weights).subarray(place * kh * kw * count);
      const terms = taps().flatMap((tap) =>
        Array.from({ length: count }, (_, c) =>
          term(input, tap.y, tap.x, c, own[(tap.ky * kw + tap.kx) * count + c], tap),
        ),
      );
      return { terms, bias: ownBias };
    }
    case "DepthwiseConv2D": {
      const [kh, kw] = layer.windows.kernel,
        own = part(weights).subarray(place * kh * kw);
      const terms = taps().map((tap) => term(input, tap.y, tap.x, channel, own[tap.ky * kw + tap.kx], tap));
      return { terms, bias: ownBias };
    }
    case "Dense": {
      const own = part(weights).subarray(place * count);
      return {
        terms: Array.from({ length: count }, (_, i) => term(input, 0, 0, i, own[i])),
        bias: ownBias,
      };
    }
    case "BatchNormalization": {
      const [gamma, beta, mean, variance] = [0, 1, 2, 3].map((i) => part(norm)[i * shown + place]);
      const scale = gamma / Math.sqrt(variance + layer.epsilon);
      const terms = [term(input, y, x, channel, scale)];
      return { terms, bias: beta - scale * mean, norm: { gamma, beta, mean, variance } };
    }
    case "MaxPooling2D":
    case "GlobalMaxPooling2D": {
      const terms = taps().map((tap) => term(input, tap.y, tap.x, channel, 0, tap));
      // Of equal ones the first wins.
      terms.reduce((a, b) => (b.value > a.value ? b : a)).factor = 1;
      return { terms, bias: 0 };
    }
    case "AveragePooling2D":
    case "GlobalAveragePooling2D": {
      const all = taps();
      return { terms: all.map((tap) => term(input, tap.y, tap.x, channel, 1 / all.length, tap)), bias: 0 };
    }
    case "ZeroPadding2D": {
      const iy = y - layer.pad[0],
        ix = x - layer.pad[1];
      const inside = iy >= 0 && ix >= 0 && iy < input.sides[0] && ix < width;
      return { terms: inside ? [term(input, iy, ix, channel, 1)] : [], bias: 0 };
    }
    case "UpSampling2D": {
      const rows = interpolation(input.sides[0], layer.sides[0])[y];
      const columns = interpolation(width, layer.sides[1])[x];
      const terms = rows.flatMap(([iy, a]) =>
        columns.map(([ix, b]) => term(input, iy, ix, channel, a * b)),
      );
      return { terms, bias: 0 };
    }
    case "Flatten":
    case "Reshape": {
      const at = (y * layer.sides[1] + x) * layer.sides[2] + channel,
        pixel = Math.floor(at / count);
      return { terms: [term(input, Math.floor(pixel / width), pixel % width, at % count, 1)], bias: 0 };
    }
    case "Add":
      return { terms: layer.inputs.map((index) => term(layers[index], y, x, channel, 1)), bias: 0 };
    case "Concatenate": {
      const [from, own] = concatenated(layer, channel);
      return { terms: [term(from, y, x, own, 1)], bias: 0 };
    }
    default:
      return { terms: [term(input, y, x, channel, 1)], bias: 0 };
  }
};

// A number, computed again: its terms, their sum, what the activation makes of it, what the engine computed.
const forward = (layer, y, x, channel) => {
  const made = termsOf(layer, y, x, channel);
  const engine = valueAt(layer, y * layer.sides[1] + x, channel);
  if (!made) return { terms: null, engine };
  const sum = made.terms.reduce((sum, term) => sum + term.value * term.factor, 0) + made.bias;
  let value = layer.activation === "softmax" ? undefined : activate[layer.activation](sum),
    scores;
  if (layer.activation === "softmax") {
    const input = layers[layer.inputs[0]];
    scores = isActivation(layer)
      ? Array.from({ length: input.sides[2] }, (_, c) => valueAt(input, y * input.sides[1] + x, c))
      : explanation.logits;
    const high = Math.max(...scores);
    value = Math.exp(sum - high) / scores.reduce((all, z) => all + Math.exp(z - high), 0);
  }
  return { ...made, sum, value, scores, engine };
};

// What a layer that reads a number sends back to it: one share an output that the number went to.
const sharesFrom = (reader, layer, y, x, channel) => {
  const [, width, count] = reader.sides,
    kernelWidth = reader.windows?.kernel[1];
  const share = (y, x, channel, gradient, factor) => ({ layer: reader, y, x, channel, gradient, factor });
  const narrow = (oy, ox, c, factor) => share(oy, ox, c, gradientAt(reader, oy * width + ox, c), factor);
  const wide = (oy, ox, c, factor) => share(oy, ox, c, innerGradientAt(reader, oy * width + ox, c), factor);
  const outputs = () => outputsOf(reader.windows, y, x);
  const place = reader.place.get(channel),
    own = layer.place.get(channel);
  switch (reader.kind) {
    case "Conv2D": {
      const taps = reader.windows.kernel[0] * kernelWidth;
      const rows = part(reader.numbers.rows).subarray(own * taps * count);
      return outputs().flatMap((tap) =>
        Array.from({ length: count }, (_, filter) =>
          wide(tap.y, tap.x, filter, rows[(tap.ky * kernelWidth + tap.kx) * count + filter]),
        ),
      );
    }
    case "Dense": {
      const rows = part(reader.numbers.rows).subarray(own * count);
      return Array.from({ length: count }, (_, unit) => wide(0, 0, unit, rows[unit]));
    }
    case "DepthwiseConv2D": {
      const taps = reader.windows.kernel[0] * kernelWidth;
      const weights = part(reader.numbers.weights).subarray(place * taps);
      return outputs().map((tap) => narrow(tap.y, tap.x, channel, weights[tap.ky * kernelWidth + tap.kx]));
    }
    case "BatchNormalization": {
      const norm = part(reader.numbers.norm),
        shown = reader.channels.length;
      return [narrow(y, x, channel, norm[place] / Math.sqrt(norm[3 * shown + place] + reader.epsilon))];
    }
    case "MaxPooling2D":
    case "GlobalMaxPooling2D":
      return outputs().map((tap) => {
        const won = termsOf(reader, tap.y, tap.x, channel).terms.find((term) => term.factor === 1);
        return narrow(tap.y, tap.x, channel, +(won.y === y && won.x === x));
      });
    case "AveragePooling2D":
    case "GlobalAveragePooling2D":
      return outputs().map((tap) =>
        narrow(tap.y, tap.x, channel, 1 / tapsOf(reader.windows, tap.y, tap.x).length),
      );
    case "ZeroPadding2D":
      return [narrow(y + reader.pad[0], x + reader.pad[1], channel, 1)];
    case "UpSampling2D": {
      const along = (axis, at) =>
        interpolation(layer.sides[axis], reader.sides[axis]).flatMap((taps, i) => {
          const weight = taps.reduce((sum, [from, w]) => sum + (from === at ? w : 0), 0);
          return weight ? [[i, weight]] : [];
        });
      const columns = along(1, x);
      return along(0, y).flatMap(([oy, a]) => columns.map(([ox, b]) => narrow(oy, ox, channel, a * b)));
    }
    case "Flatten":
    case "Reshape": {
      const at = (y * layer.sides[1] + x) * layer.sides[2] + channel,
        pixel = Math.floor(at / count);
      return [wide(Math.floor(pixel / width), pixel % width, at % count, 1)];
    }
    case "Add":
      return reader.inputs.filter((i) => i === layer.index).map(() => narrow(y, x, channel, 1));
    case "Concatenate": {
      let before = 0;
      return reader.inputs.flatMap((index) => {
        const from = before;
        before += layers[index].sides[2];
        return index === layer.index ? [narrow(y, x, from + channel, 1)] : [];
      });
    }
    default: {
      if (!isActivation(reader)) return [narrow(y, x, channel, 1)];
      // What is explained is the logit, before the probabilities that the last layer makes.
      const last = reader.index === layers.length - 1 && makesProbabilities(reader);
      return [
        narrow(y, x, channel, last ? 1 : slope[reader.activation](valueAt(reader, y * width + x, channel))),
      ];
    }
  }
};

const backward = (layer, y, x, channel) => {
  const tape = gradientAt(layer, y * layer.sides[1] + x, channel) ?? 0;
  if (layer.index === layers.length - 1) return { shares: null, sum: tape, tape };
  const all = layer.readers.flatMap((i) => sharesFrom(layers[i], layer, y, x, channel));
  // (A layer that the target does not depend on sends nothing.)
  const shares = all.filter((share) => share.gradient !== undefined);
  return { shares, sum: shares.reduce((sum, share) => sum + share.gradient * share.factor, 0), tape };
};

// The part of the image that a pixel can depend on: rows and columns, both ends included.
const receptiveField = (layer, y, x) => {
  const fields = new Array(layers.length);
  const join = (index, [top, bottom, left, right]) => {
    const [h, w] = layers[index].sides,
      f = fields[index] ?? [h, -1, w, -1];
    const [a, b, c, d] = [
      Math.max(top, 0),
      Math.min(bottom, h - 1),
      Math.max(left, 0),
      Math.min(right, w - 1),
    ];
    fields[index] = [Math.min(f[0], a), Math.max(f[1], b), Math.min(f[2], c), Math.max(f[3], d)];
  };
  join(layer.index, [y, y, x, x]);
  for (let i = layer.index; i > 0; i--) {
    if (!fields[i]) continue;
    const own = layers[i],
      [top, bottom, left, right] = fields[i];
    for (const index of own.inputs) {
      const [h, w] = layers[index].sides;
      if (own.windows) {
        const { kernel, stride, dilation, before } = own.windows;
        const first = (at, axis) => at * stride[axis] - before[axis];
        const last = (at, axis) => first(at, axis) + (kernel[axis] - 1) * dilation[axis];
        join(index, [first(top, 0), last(bottom, 0), first(left, 1), last(right, 1)]);
      } else if (own.pad) {
        join(index, [top - own.pad[0], bottom - own.pad[0], left - own.pad[1], right - own.pad[1]]);
      } else if (own.factors) {
        const rows = interpolation(h, own.sides[0]),
          columns = interpolation(w, own.sides[1]);
        join(index, [
          rows[top][0][0],
          rows[bottom].at(-1)[0],
          columns[left][0][0],
          columns[right].at(-1)[0],
        ]);
      } else if (["Dense", "Flatten", "Reshape"].includes(own.kind)) {
        join(index, [0, h - 1, 0, w - 1]);
      } else join(index, fields[i]);
    }
  }
  return fields[0];
};
