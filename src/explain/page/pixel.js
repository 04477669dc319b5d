// The tables of a number: what it is the sum of, and what its gradient is the sum of.
"use strict";
// A link to a pixel, if the page has the numbers of it.
const link = (layer, y, x, channel, label) => {
  if (!layer.place.has(channel)) return `<span title="The page has no numbers of it">${label}</span>`;
  const [nearY, nearX] = nearestPixel(layer, y, x);
  const exact = nearY === y && nearX === x;
  const title = exact ? "" : ` title="Leads to (${nearY}, ${nearX}), the nearest that the page has"`;
  const href = escape(address(layer, channel, nearY, nearX));
  return `<a href="${href}"${title}>${label}${exact ? "" : " ≈"}</a>`;
};

const place = (layer, y, x, channel) => (layer.flat ? `[${channel}]` : `(${y}, ${x}) ch ${channel}`);

// One row a product, the largest first.
const productTable = (which, rows, names) => {
  const order = [...rows].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const most = Math.abs(order[0]?.product ?? 0) || 1;
  const top = order.slice(0, state.all[which] ? 4000 : 24);
  const others = order.slice(top.length);
  const rest = others.reduce((sum, row) => sum + row.product, 0);
  const bar = (v) => {
    const width = ((50 * Math.abs(v)) / most).toFixed(1);
    return `<span class="amount ${v < 0 ? "minus" : "plus"}" style="width:${width}%"></span>`;
  };
  const number = (v) => `<td class="number">${text(v)}</td>`;
  const line = (row) =>
    `<tr data-a="${row.a}" data-b="${row.b}"><td class="text">${row.where}</td>` +
    `${number(row.a)}${number(row.b)}${number(row.product)}<td class="bars">${bar(row.product)}</td></tr>`;
  const more = () =>
    `<tr class="others"><td class="text" colspan="3">the other ${count(others.length)} sum to</td>` +
    `${number(rest)}<td><button type="button" data-all="${which}">Show all</button></td></tr>`;
  const [where, a, b] = names;
  return `<div class="scroll products"><table>
    <thead><tr><th class="text">${where}</th><th>${a}</th><th>${b}</th><th>product</th><th></th></tr></thead>
    <tbody>${top.map(line).join("")}${others.length ? more() : ""}</tbody></table></div>`;
};

// Names and numbers, line by line; those of `data` in full for whoever reads the page by program.
const result = (id, lines, data) => {
  const values = Object.entries(data).map(([key, value]) => ` data-${key}="${value}"`);
  const line = ([name, value, strong]) =>
    `<div${strong ? ' class="strong"' : ""}><dt>${name}</dt><dd>${value}</dd></div>`;
  return `<dl class="result" id="${id}"${values.join("")}>${lines.map(line).join("")}</dl>`;
};

const RULE = {
  Conv2D: "Each number of the window, times the weight for it, all channels; and the bias.",
  DepthwiseConv2D: "Each number of the window in this channel alone, times its weight.",
  Dense: "Every input, times its weight; and the bias.",
  BatchNormalization: "The moving mean taken off, divided by the moving deviation, times γ, plus β.",
  MaxPooling2D: "The largest of the window: factor 1 for it, 0 for all others.",
  GlobalMaxPooling2D: "The largest of the whole map: factor 1 for it, 0 for all others.",
  AveragePooling2D: "The mean of the window; cells of padding do not count.",
  GlobalAveragePooling2D: "The mean of the whole map.",
  ZeroPadding2D: "The pixel moved; 0 on the border.",
  UpSampling2D: "The four pixels around it, weighted by how near they are (bilinear).",
  Flatten: "The same number in another place.",
  Reshape: "The same number in another place.",
  Dropout: "The same number: nothing is dropped at inference.",
  Add: "The sum of the branches.",
  Concatenate: "The channel of one of the branches.",
};
const FORMULA = {
  relu: "max(x, 0)",
  relu6: "min(max(x, 0), 6)",
  sigmoid: "1 / (1 + e⁻ˣ)",
  tanh: "tanh x",
  softmax: "eˣ / Σ eˣ",
};

// A batch norm's three steps.
const normLines = ({ norm, terms, sum }, { epsilon }) => {
  const { gamma, beta, mean, variance } = norm;
  const [x, spread] = [terms[0].value, Math.sqrt(variance + epsilon)];
  return [
    ["x − μ", `${text(x)} − ${text(mean)} = ${text(x - mean)}`],
    ["÷ √(σ² + ε)", `√(${text(variance)} + ${epsilon}) = ${text(spread)} → ${text((x - mean) / spread)}`],
    ["× γ + β", `× ${text(gamma)} + ${text(beta)} = ${text(sum)}`],
  ];
};

const sumLines = ({ terms, sum, bias }, layer) => {
  if (terms.length === 1 && terms[0].factor === 1) return [["x", text(sum)]];
  const products = [`Σ of ${count(terms.length)} products`, text(sum - bias)];
  return layer.numbers.bias ? [products, ["+ bias", text(bias)], ["sum", text(sum)]] : [products];
};

const forwardHtml = (layer, { y, x, channel }) => {
  const made = forward(layer, y, x, channel);
  const { terms, sum, bias, value, engine, scores } = made;
  if (!terms) {
    const data = { terms: 0, sum: engine, value: engine, engine };
    return `<p>The image itself, as it was prepared for the network: given, not computed.</p>
      ${result("forward", [["value", text(engine), true]], data)}`;
  }
  const window = layer.windows && !layer.kind.startsWith("Global");
  const whose = (term) => (layer.inputs.length > 1 ? `${escape(term.layer.name)} ` : "");
  const tap = (term) =>
    term.tap && window ? ` <span class="soft">tap ${term.tap.ky},${term.tap.kx}</span>` : "";
  const row = (term) => {
    const label = whose(term) + place(term.layer, term.y, term.x, term.channel);
    const where = link(term.layer, term.y, term.x, term.channel, label) + tap(term);
    return { a: term.value, b: term.factor, product: term.value * term.factor, where };
  };
  const taps = window ? layer.windows.kernel[0] * layer.windows.kernel[1] : 0;
  const outside = taps - new Set(terms.map((term) => `${term.y} ${term.x}`)).size;
  const border = outside > 0 ? ` ${outside} of ${taps} taps lie outside the image and count nothing.` : "";
  const lines = made.norm ? normLines(made, layer) : sumLines(made, layer);
  if (layer.activation !== "linear") {
    const over = scores ? ` over ${scores.length} classes` : "";
    lines.push([`${layer.activation}: ${FORMULA[layer.activation]}${over}`, text(value)]);
  }
  lines.push(
    ["summed here, in f64", text(value), true],
    ["the engine, in f32", text(engine), true],
    ["difference", text(value - engine)],
  );
  const rule = isActivation(layer) ? `${FORMULA[layer.activation]}, number by number.` : RULE[layer.kind];
  const factor = layer.numbers.weights ? "weight" : "factor";
  return `<p>${rule}${border}</p>
    ${terms.length ? productTable("forward", terms.map(row), ["read from", "value", factor]) : ""}
    ${result("forward", lines, { terms: terms.length, sum, bias, value, engine })}`;
};

const backwardHtml = (layer, { y, x, channel }) => {
  const { shares, sum, tape } = backward(layer, y, x, channel);
  if (!shares) {
    const before = makesProbabilities(layer) ? `, before ${layer.activation}` : "";
    const name = escape(explanation.target.name);
    return `<p>Here the gradient begins: 1 for the explained logit (${name}), 0 for all others${before}.</p>
      ${result("backward", [["gradient", text(tape), true]], { sum, tape })}`;
  }
  if (!shares.length) {
    return `<p>The explained logit does not depend on it.</p>${result("backward", [], { sum, tape })}`;
  }
  const row = (share) => {
    const label = `${escape(share.layer.name)} ${place(share.layer, share.y, share.x, share.channel)}`;
    const where = link(share.layer, share.y, share.x, share.channel, label);
    return { a: share.gradient, b: share.factor, product: share.gradient * share.factor, where };
  };
  const own = layer.readers.some((i) => !isActivation(layers[i]) && layers[i].activation !== "linear");
  const before = own ? " (the gradient before that layer's activation)" : "";
  const lines = [
    ["summed here, in f64", text(sum), true],
    ["the tape, in f32", text(tape), true],
    ["difference", text(sum - tape)],
  ];
  const [numbers, next] = [shares.length === 1 ? "number" : "numbers", layer.readers.length === 1 ? "" : "s"];
  return `<p>It went to ${count(shares.length)} ${numbers} of the next layer${next}: each sends back its own
    gradient times the factor that this one had in it${before}.</p>
    ${productTable("backward", shares.map(row), ["sent by", "its gradient", "factor"])}
    ${result("backward", lines, { shares: shares.length, sum, tape })}`;
};
