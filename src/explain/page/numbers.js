// The page's data, and the numbers that it has of each layer.
"use strict";
const explanation = JSON.parse(document.getElementById("explanation").textContent);
const layers = explanation.layers;
const layerOf = new Map(layers.map((layer, i) => [layer.name, i]));

const numbers = (() => {
  const text = atob(explanation.numbers);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  explanation.numbers = "";
  return new Float32Array(bytes.buffer);
})();

layers.forEach((layer, i) => {
  layer.index = i;
  layer.readers = [];
  // Where a channel is among those that are shown.
  layer.place = new Map(layer.channels.map((shown, place) => [shown.channel, place]));
});
layers.forEach((layer, i) => new Set(layer.inputs).forEach((input) => layers[input].readers.push(i)));

const part = ([from, length]) => numbers.subarray(from, from + length);

// Where the numbers of a pixel begin among those that are kept; undefined where it is not.
const keptRow = (kept, pixel) => {
  if (!kept.at) return pixel;
  kept.rows ??= new Map(Array.from(part(kept.at), (at, row) => [at, row]));
  return kept.rows.get(pixel);
};

// A number of a shown channel, and one of any channel.
const ofShown = (layer, kept, pixel, channel) => {
  const row = keptRow(kept, pixel),
    place = layer.place.get(channel);
  if (row === undefined || place === undefined) return undefined;
  const at = row * layer.channels.length + place;
  return at < kept.data[1] ? numbers[kept.data[0] + at] : undefined;
};
const ofAny = (layer, kept, pixel, channel) => {
  const row = keptRow(kept, pixel);
  if (row === undefined) return undefined;
  const at = row * layer.sides[2] + channel;
  return at < kept.data[1] ? numbers[kept.data[0] + at] : undefined;
};

// What the engine computed at a pixel `y · width + x`, and the target's gradient by it.
const valueAt = (layer, pixel, channel) =>
  ofAny(layer, layer.numbers.wide_values, pixel, channel) ??
  ofShown(layer, layer.numbers.values, pixel, channel);
const gradientAt = (layer, pixel, channel) => ofShown(layer, layer.numbers.gradients, pixel, channel);
// Before the layer's own activation.
const innerGradientAt = (layer, pixel, channel) =>
  ofAny(layer, layer.numbers.wide_gradients, pixel, channel);

// Pixels that can be looked into.
const pixelsOf = (layer) => (layer.lattice ??= Array.from(part(layer.numbers.pixels)));
const isComplete = (layer) => pixelsOf(layer).length === layer.sides[0] * layer.sides[1];
const nearestPixel = (layer, y, x) => {
  const width = layer.sides[1];
  const distance = (pixel) => (Math.floor(pixel / width) - y) ** 2 + ((pixel % width) - x) ** 2;
  const best = pixelsOf(layer).reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return [Math.floor(best / width), best % width];
};
