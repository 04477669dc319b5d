// What is looked at. The address says where: #layer=NAME&channel=3&y=5&x=7
"use strict";
const element = (id) => document.getElementById(id);
const [startLayer, startChannel] = explanation.start ?? [layers.length - 1, explanation.target.class];
const state = {
  layer: startLayer,
  channel: startChannel,
  y: undefined,
  x: undefined,
  // Which thumbnails: of values, or of gradients.
  map: "maps",
  // Whether all products are listed, forward and backward.
  all: {},
};
// What the address asked for and the page has not.
let asked = null;

const address = (layer, channel, y, x) =>
  `#layer=${encodeURIComponent(layer.name)}&channel=${channel}&y=${y}&x=${x}`;

// The pixel of a channel that is largest, of those that can be looked into.
const brightest = (layer, channel) => {
  const size = (pixel) => Math.abs(valueAt(layer, pixel, channel) ?? 0);
  const best = pixelsOf(layer).reduce((a, b) => (size(b) > size(a) ? b : a));
  return [Math.floor(best / layer.sides[1]), best % layer.sides[1]];
};

// Takes over what the address says, as far as there is such a thing.
const read = () => {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const theme = wanted.get("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const number = (key) => (/^\d+$/.test(wanted.get(key) ?? "") ? Number(wanted.get(key)) : undefined);
  asked = null;
  state.all = {};
  if (wanted.has("layer")) {
    const index = layerOf.get(wanted.get("layer"));
    if (index === undefined) asked = `There is no layer “${wanted.get("layer")}”.`;
    else if (index !== state.layer) {
      Object.assign(state, { layer: index, channel: undefined, y: undefined });
    }
  }
  const layer = layers[state.layer];
  const channel = number("channel") ?? state.channel;
  if (channel !== undefined && !layer.place.has(channel)) {
    const has = `it has those of ${layer.channels.length} channels`;
    asked = `This page has no numbers of channel ${channel}: ${has}.`;
  }
  state.channel = layer.place.has(channel) ? channel : layer.channels[0].channel;
  const [y, x] = [number("y") ?? state.y, number("x") ?? state.x];
  const free = y === undefined || x === undefined;
  [state.y, state.x] = free ? brightest(layer, state.channel) : nearestPixel(layer, y, x);
  if (!free && (state.y !== y || state.x !== x)) {
    asked ??= `Nearest to (${y}, ${x}) of the pixels that this page has the numbers of.`;
  }
};

// Looks elsewhere: at the same place of another layer, if no other is said.
const go = (change) => {
  const next = { ...state, ...change };
  const [layer, from] = [layers[next.layer], layers[state.layer].sides];
  if (change.layer !== undefined && change.layer !== state.layer) {
    next.channel = layer.place.has(state.channel) ? state.channel : layer.channels[0].channel;
    const scaled = (at, axis) => Math.floor(((at + 0.5) * layer.sides[axis]) / from[axis]);
    const single = from[0] * from[1] === 1;
    const same = () => nearestPixel(layer, scaled(state.y, 0), scaled(state.x, 1));
    [next.y, next.x] = single ? brightest(layer, next.channel) : same();
  }
  history.pushState(null, "", address(layer, next.channel, next.y, next.x));
  read();
  draw();
};

const step = (list, at, by) => list[Math.min(Math.max(at + by, 0), list.length - 1)];

// The next pixel of the lattice in a direction.
const neighbour = (layer, dy, dx) => {
  const [width, own] = [layer.sides[1], pixelsOf(layer)];
  const rows = [...new Set(own.map((pixel) => Math.floor(pixel / width)))];
  const columns = [...new Set(own.map((pixel) => pixel % width))];
  return { y: step(rows, rows.indexOf(state.y), dy), x: step(columns, columns.indexOf(state.x), dx) };
};

const channelBy = (layer, by) => step(layer.channels, layer.place.get(state.channel), by).channel;
const KEYS = {
  ArrowUp: (layer) => neighbour(layer, -1, 0),
  ArrowDown: (layer) => neighbour(layer, 1, 0),
  ArrowLeft: (layer) => neighbour(layer, 0, -1),
  ArrowRight: (layer) => neighbour(layer, 0, 1),
  j: () => ({ layer: step(layers, state.layer, 1).index }),
  k: () => ({ layer: step(layers, state.layer, -1).index }),
  l: (layer) => ({ channel: channelBy(layer, 1) }),
  h: (layer) => ({ channel: channelBy(layer, -1) }),
};

const pressed = (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  if (event.key === "/") {
    event.preventDefault();
    element("search").focus();
    return;
  }
  // Arrows scroll what is scrolled, and move the pixel elsewhere.
  const onMap = element("map")?.contains(event.target);
  const scrolls = event.key.startsWith("Arrow") && !onMap && event.target !== document.body;
  if (!KEYS[event.key] || scrolls) return;
  event.preventDefault();
  go(KEYS[event.key](layers[state.layer]));
  if (onMap) element("map")?.focus();
};

const clicked = (event) => {
  const [button, map] = [event.target.closest("button"), event.target.closest("#map")];
  if (map) {
    const [box, layer] = [map.getBoundingClientRect(), layers[state.layer]];
    const along = (at, from, size, side) => Math.min(side - 1, Math.floor(((at - from) / size) * side));
    const y = along(event.clientY, box.top, box.height, layer.sides[0]);
    const x = along(event.clientX, box.left, box.width, layer.sides[1]);
    const [nearY, nearX] = nearestPixel(layer, y, x);
    go({ y: nearY, x: nearX });
  } else if (button?.dataset.channel) go({ channel: Number(button.dataset.channel) });
  else if (button?.dataset.layer) go({ layer: Number(button.dataset.layer) });
  else if (button?.dataset.map) {
    state.map = button.dataset.map;
    draw();
  } else if (button?.dataset.all) {
    state.all[button.dataset.all] = true;
    draw();
  }
};

const listen = () => {
  const moved = () => {
    read();
    draw();
  };
  addEventListener("hashchange", moved);
  addEventListener("popstate", moved);
  addEventListener("keydown", pressed);
  element("detail").addEventListener("click", clicked);
};
