// What is looked at, and drawing it. The address says where: #layer=NAME&channel=3&y=5&x=7
"use strict";
const element = (id) => document.getElementById(id);
const [startLayer, startChannel] = explanation.start ?? [layers.length - 1, explanation.target.class];
const state = { layer: startLayer, channel: startChannel, y: undefined, x: undefined, map: "maps", all: {} };
let asked = null;

const address = (layer, channel, y, x) =>
  `#layer=${encodeURIComponent(layer.name)}&channel=${channel}&y=${y}&x=${x}`;

// The pixel of a channel that is largest, of those that can be looked into.
const brightest = (layer, channel) => {
  const size = (pixel) => Math.abs(valueAt(layer, pixel, channel) ?? 0);
  const best = pixelsOf(layer).reduce((a, b) => (size(b) > size(a) ? b : a));
  return [Math.floor(best / layer.sides[1]), best % layer.sides[1]];
};

// Takes over what the address says, as far as there is such a thing; what is asked for and not there is told.
const read = () => {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (/^(light|dark)$/.test(wanted.get("theme"))) document.documentElement.dataset.theme = wanted.get("theme");
  asked = null;
  const number = (key) => (/^\d+$/.test(wanted.get(key) ?? "") ? Number(wanted.get(key)) : undefined);
  if (wanted.has("layer")) {
    const index = layerOf.get(wanted.get("layer"));
    if (index === undefined) asked = `There is no layer “${wanted.get("layer")}”.`;
    else if (index !== state.layer) Object.assign(state, { layer: index, channel: undefined, y: undefined });
  }
  const layer = layers[state.layer], channel = number("channel") ?? state.channel;
  if (channel !== undefined && !layer.place.has(channel)) {
    asked = `This page has no numbers of channel ${channel}: it has those of ${layer.channels.length} channels.`;
  }
  state.channel = layer.place.has(channel) ? channel : layer.channels[0].channel;
  const [y, x] = [number("y") ?? state.y, number("x") ?? state.x];
  const found = y === undefined || x === undefined ? brightest(layer, state.channel) : nearestPixel(layer, y, x);
  if (y !== undefined && x !== undefined && (found[0] !== y || found[1] !== x)) {
    asked ??= `Nearest to (${y}, ${x}) of the pixels that this page has the numbers of.`;
  }
  [state.y, state.x] = found;
};

const go = (change) => {
  const next = { ...state, ...change }, layer = layers[next.layer];
  if (change.layer !== undefined && change.layer !== state.layer && change.channel === undefined) {
    next.channel = layer.place.has(state.channel) ? state.channel : layer.channels[0].channel;
    const from = layers[state.layer].sides, scale = (at, axis) => Math.floor(((at + 0.5) * layer.sides[axis]) / from[axis]);
    [next.y, next.x] = nearestPixel(layer, scale(state.y, 0), scale(state.x, 1));
    if (from[0] * from[1] === 1) [next.y, next.x] = brightest(layer, next.channel);
  }
  history.pushState(null, "", address(layer, next.channel, next.y, next.x));
  read();
  draw();
};

// A link to a pixel, if the page has the numbers of it.
const link = (layer, y, x, channel, label) => {
  if (!layer.place.has(channel)) return `<span title="The page has no numbers of this channel">${label}</span>`;
  const [ny, nx] = nearestPixel(layer, y, x), near = ny === y && nx === x ? "" : " ≈";
  const title = near && ` title="Leads to (${ny}, ${nx}), the nearest that the page has"`;
  return `<a href="${escape(address(layer, channel, ny, nx))}"${title}>${label}${near}</a>`;
};

const place = (layer, y, x, channel) => (layer.flat ? `[${channel}]` : `(${y}, ${x}) ch ${channel}`);
const WHY = { all: "", asked: "asked for", class: "a likely class", feeds: "feeds the next layer's", active: "active", branch: "a branch's" };

// One row a product, the largest first.
const products = (which, rows, names) => {
  const order = [...rows].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const most = Math.abs(order[0]?.product ?? 0) || 1, top = state.all[which] ? order.slice(0, 4000) : order.slice(0, 24);
  const others = order.slice(top.length), rest = others.reduce((sum, row) => sum + row.product, 0);
  const bar = (v) => `<span class="bar ${v < 0 ? "minus" : "plus"}" style="width:${((50 * Math.abs(v)) / most).toFixed(1)}%"></span>`;
  const line = (row) => `<tr data-a="${row.a}" data-b="${row.b}"><td class="text">${row.where}</td><td class="number">${text(row.a)}</td>
    <td class="number">${text(row.b)}</td><td class="number">${text(row.product)}</td><td class="bars">${bar(row.product)}</td></tr>`;
  const more = others.length
    ? `<tr class="others"><td class="text" colspan="3">the other ${count(others.length)} sum to</td><td class="number">${text(rest)}</td>
       <td><button type="button" data-all="${which}">Show all</button></td></tr>` : "";
  return `<div class="scroll products"><table><thead><tr><th class="text">${names[0]}</th><th>${names[1]}</th><th>${names[2]}</th>
    <th>product</th><th></th></tr></thead><tbody>${top.map(line).join("")}${more}</tbody></table></div>`;
};

const result = (id, lines, data) => {
  const values = Object.entries(data).map(([key, value]) => ` data-${key}="${value}"`).join("");
  const rows = lines.filter(Boolean).map(([name, value, strong]) =>
    `<div${strong ? ' class="strong"' : ""}><dt>${name}</dt><dd>${value}</dd></div>`).join("");
  return `<dl class="result" id="${id}"${values}>${rows}</dl>`;
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
  Flatten: "The same number in another place.", Reshape: "The same number in another place.",
  Dropout: "The same number: nothing is dropped at inference.",
  Add: "The sum of the branches.", Concatenate: "The channel of one of the branches.",
};

const FORMULA = { relu: "max(x, 0)", relu6: "min(max(x, 0), 6)", sigmoid: "1 / (1 + e⁻ˣ)", tanh: "tanh x",
  softmax: "eˣ / Σ eˣ" };

const forwardHtml = (layer, { y, x, channel }) => {
  const made = forward(layer, y, x, channel);
  if (!made.terms) {
    return `<p>The image itself, as it was prepared for the network: given, not computed.</p>
      ${result("forward", [["value", text(made.engine), true]], { engine: made.engine })}`;
  }
  const { terms, bias, sum, value, engine, activation = layer.activation } = made;
  const window = layer.windows && !layer.kind.startsWith("Global");
  const rows = terms.map((term) => ({
    a: term.value, b: term.factor, product: term.value * term.factor,
    where: link(term.layer, term.y, term.x, term.channel, `${layer.inputs.length > 1 ? `${escape(term.layer.name)} ` : ""}${
      place(term.layer, term.y, term.x, term.channel)}`) + (term.tap && window ? ` <span class="soft">tap ${term.tap.ky},${term.tap.kx}</span>` : ""),
  }));
  const taps = window ? layer.windows.kernel[0] * layer.windows.kernel[1] : 0;
  const inWindow = new Set(terms.map((term) => term.y * 1e6 + term.x)).size;
  const border = taps > inWindow ? ` ${taps - inWindow} of ${taps} taps lie outside the image and count nothing.` : "";
  const products_ = terms.length > 1 || (terms.length === 1 && terms[0].factor !== 1);
  const lines = [];
  if (made.norm) {
    const { gamma, beta, mean, variance } = made.norm, x0 = terms[0].value, spread = Math.sqrt(variance + layer.epsilon);
    lines.push(["x − μ", `${text(x0)} − ${text(mean)} = ${text(x0 - mean)}`],
      ["÷ √(σ² + ε)", `√(${text(variance)} + ${layer.epsilon}) = ${text(spread)} → ${text((x0 - mean) / spread)}`],
      ["× γ + β", `× ${text(gamma)} + ${text(beta)} = ${text(sum)}`]);
  } else {
    if (products_) lines.push([`Σ of ${count(terms.length)} products`, text(sum - bias)]);
    if (layer.numbers.bias) lines.push(["+ bias", text(bias)], ["sum", text(sum)]);
    if (!products_) lines.push(["x", text(sum)]);
  }
  if (activation !== "linear") {
    const over = made.scores ? ` over ${made.scores.length} classes` : "";
    lines.push([`${activation}: ${FORMULA[activation]}${over}`, text(value)]);
  }
  lines.push(["summed here, in f64", text(value), true], ["the engine, in f32", text(engine), true],
    ["difference", text(value - engine)]);
  const rule = isActivation(layer) ? `${FORMULA[activation]}, number by number.` : RULE[layer.kind] ?? "";
  return `<p>${rule}${border}</p>${rows.length ? products("forward", rows, ["read from", "value", layer.windows || layer.kind === "Dense" ? "weight" : "factor"]) : ""}
    ${result("forward", lines, { terms: terms.length, sum, bias, value, engine })}`;
};

const backwardHtml = (layer, { y, x, channel }) => {
  const { shares, sum, tape } = backward(layer, y, x, channel);
  const target = escape(explanation.target.name);
  if (!shares) {
    return `<p>Here the gradient begins: 1 for the explained logit (${target}), 0 for all others${
      makesProbabilities(layer) ? `, before ${layer.activation}` : ""}.</p>
      ${result("backward", [["gradient", text(tape), true]], { sum, tape })}`;
  }
  if (!shares.length) return `<p>The explained logit does not depend on it.</p>${result("backward", [], { sum, tape })}`;
  const rows = shares.map((share) => ({
    a: share.gradient, b: share.factor, product: share.gradient * share.factor,
    where: link(share.layer, share.y, share.x, share.channel,
      `${escape(share.layer.name)} ${place(share.layer, share.y, share.x, share.channel)}`),
  }));
  const own = layer.readers.some((i) => !isActivation(layers[i]) && layers[i].activation !== "linear");
  const lines = [["summed here, in f64", text(sum), true], ["the tape, in f32", text(tape), true],
    ["difference", text(sum - tape)]];
  return `<p>It went to ${count(shares.length)} ${shares.length === 1 ? "number" : "numbers"} of the next ${
    layer.readers.length === 1 ? "layer" : "layers"}; each sends back its own gradient times the factor that this one had in it${
    own ? " (the gradient before that layer's activation)" : ""}.</p>
    ${products("backward", rows, ["sent by", "its gradient", "factor"])}
    ${result("backward", lines, { shares: shares.length, sum, tape })}`;
};

// A channel of a sprite as a background: of all its thumbnails one is seen.
const tile = (sprite, place, of) =>
  `background-size:${100 * of}% 100%;background-position:${of > 1 ? (100 * place) / (of - 1) : 0}% 0;aspect-ratio:${sprite.width}/${sprite.height}`;

const thumbnails = (layer) => {
  const sprite = layer[state.map], of = layer.channels.length;
  const most = Math.max(...layer.channels.map((c) => c.mean_absolute), 1e-30);
  const one = (shown, i) => {
    const value = sprite ? "" : valueAt(layer, 0, shown.channel);
    const named = layer.index === layers.length - 1 ? explanation.classes[shown.channel] : undefined;
    const body = sprite ? `<span class="tile" style="${tile(sprite, i, of)}"></span>`
      : `<span class="single ${value < 0 ? "minus" : "plus"}" style="--size:${Math.min(100, (100 * Math.abs(value)) / most)}%"></span>`;
    const dead = shown.zeros === 1 ? " · dead" : "";
    const title = `channel ${shown.channel}: mean ${text(shown.mean)} ± ${text(shown.deviation)}, ${text(shown.min)} to ${
      text(shown.max)}, ${(100 * shown.zeros).toFixed(0)} % zeros${WHY[shown.why] ? `; shown as ${WHY[shown.why]}` : ""}`;
    return `<button type="button" class="thumb" data-channel="${shown.channel}" aria-pressed="${shown.channel === state.channel}"
      title="${title}">${body}<span class="name">${escape(named ?? shown.channel)}</span><span class="soft">${
      sprite ? `⌀ ${text(shown.mean)}${dead}` : text(value)}</span></button>`;
  };
  const style = sprite ? ` style="--sprite:url(${sprite.uri})"` : "";
  return `<div class="thumbs${sprite ? "" : " flat"}"${style}>${layer.channels.map(one).join("")}</div>`;
};

const bigMap = (layer) => {
  const sprite = layer[state.map];
  if (!sprite) return "";
  const [h, w] = layer.sides, at = layer.place.get(state.channel);
  const dots = isComplete(layer) ? "" : pixelsOf(layer).map((pixel) =>
    `<circle cx="${(pixel % w) + 0.5}" cy="${Math.floor(pixel / w) + 0.5}" r="${Math.max(h, w) / 110}"/>`).join("");
  const box = Math.max(h, w) / 28, size = Math.max(1, box);
  const mark = `<rect x="${state.x + 0.5 - size / 2}" y="${state.y + 0.5 - size / 2}" width="${size}" height="${size}"/>`;
  return `<figure><div class="map" id="map" role="img" aria-label="Channel ${state.channel}: click a pixel" tabindex="0"
    style="--sprite:url(${sprite.uri});${tile(sprite, at, layer.channels.length)}">
    <svg viewBox="0 0 ${w} ${h}" preserveAspectRatio="none">${dots}${mark}</svg></div>
    <figcaption>${state.map === "maps" ? "Channel" : "Gradient of channel"} ${state.channel}: blue below 0, red above.${
    dots ? ` The page has the numbers of the ${pixelsOf(layer).length} dotted pixels of ${count(h * w)}; a click takes the nearest.` : " Click a pixel."}</figcaption></figure>`;
};

const fieldMap = (layer) => {
  const image = document.querySelector(".seen img");
  if (!image || layer.index === 0) return "";
  const [h, w] = layers[0].sides, [top, bottom, left, right] = receptiveField(layer, state.y, state.x);
  const whole = top === 0 && left === 0 && bottom === h - 1 && right === w - 1;
  return `<figure><div class="field"><img class="pixels" src="${image.src}" alt=""><svg viewBox="0 0 ${w} ${h}">
    <path d="M0 0H${w}V${h}H0ZM${left} ${top}V${bottom + 1}H${right + 1}V${top}Z"/><rect x="${left}" y="${top}" width="${right - left + 1}" height="${bottom - top + 1}"/></svg></div>
    <figcaption>Its receptive field: ${whole ? "the whole image" : `${bottom - top + 1} × ${right - left + 1} of ${h} × ${w} pixels`}.</figcaption></figure>`;
};

const facts = (layer) => {
  const all = [["output", shape(layer)], ["parameters", count(layer.parameters)], ["FLOPs", flops(layer.flops)],
    ["output bytes", count(layer.bytes)]];
  const w = layer.windows;
  if (w && !layer.kind.startsWith("Global")) {
    all.push(["window", w.kernel.join(" × ")], ["stride", w.stride.join(" × ")]);
    if (w.dilation.some((d) => d > 1)) all.push(["dilation", w.dilation.join(" × ")]);
    if (w.before.some((b) => b > 0)) all.push(["zeros before", w.before.join(", ")]);
  }
  if (layer.factors) all.push(["factor", layer.factors.join(" × ")]);
  if (layer.activation !== "linear") all.push(["activation", layer.activation]);
  all.push(["mean |activation|", text(layer.mean_absolute)],
    [layer.flat ? "zeros" : "dead channels", `${count(layer.dead)} of ${count(layer.sides[2])}`]);
  for (const [name, value] of layer.extra ?? []) all.push([name, value]);
  return `<dl class="facts">${all.map(([name, value]) => `<div><dt>${name}</dt><dd>${escape(value)}</dd></div>`).join("")}</dl>`;
};

const detail = () => {
  const layer = layers[state.layer];
  const links = (indices) => indices.map((i) => `<button type="button" class="to" data-layer="${i}">${escape(layers[i].name)}</button>`).join(" ");
  const shown = layer.channels.length, all = layer.sides[2];
  const which = shown < all ? `${shown} of ${count(all)} ${layer.flat ? "numbers" : "channels"}: those that the next layer's shown ones are made of, and the most active` : `all ${shown}`;
  const kernel = layer.filters;
  const filterHtml = kernel ? `<h4>Filters</h4><p class="note">Red, green and blue weights of each, grey is 0, each in its own scale.</p>
    <div class="filters" style="--sprite:url(${kernel.uri})">${Array.from({ length: all }, (_, i) =>
    `<span title="filter ${i}" style="${tile(kernel, i, all)}"></span>`).join("")}</div>` : "";
  return `<header><h3>${escape(layer.name)} <span class="soft">${layer.kind}</span></h3>
    <p class="soft ways">${layer.inputs.length ? `reads ${links([...new Set(layer.inputs)])}` : "the image"}${
    layer.readers.length ? ` · read by ${links(layer.readers)}` : " · the output"}</p></header>
    ${facts(layer)}<p class="note">${escape(layer.step ? `Plan at inference: ${layer.step}.` : "No step of its own in the plan at inference: it is part of another layer's weights, or needs no work.")}</p>
    <div class="heading"><h4>${layer.flat ? "Outputs" : "Feature maps"}</h4><span class="soft">${which}</span>
    ${layer.gradient_maps ? `<span class="tabs"><button type="button" data-map="maps" aria-pressed="${state.map === "maps"}">values</button>
    <button type="button" data-map="gradient_maps" aria-pressed="${state.map === "gradient_maps"}">gradients</button></span>` : ""}</div>
    ${thumbnails(layer)}
    <div class="pixel"><div class="looks">${bigMap(layer)}${fieldMap(layer)}</div>
    <div class="numbers"><h4 id="where">${escape(layer.name)} ${place(layer, state.y, state.x, state.channel)} =
    <output>${text(valueAt(layer, state.y * layer.sides[1] + state.x, state.channel))}</output></h4>
    ${asked ? `<p class="note asked" role="status">${escape(asked)}</p>` : ""}
    <h5>How it was computed</h5>${forwardHtml(layer, state)}
    <h5>Where its gradient came from</h5>${backwardHtml(layer, state)}</div></div>
    ${filterHtml}<div class="histograms">${histogram("activations", layer.activations)}${histogram("gradients by them", layer.gradients)}${
    histogram("weights", layer.weights)}${histogram("gradients by weights", layer.weight_gradients)}</div>`;
};

const draw = () => {
  if (!layers[state.layer][state.map]) state.map = "maps";
  element("detail").innerHTML = detail();
  for (const box of document.querySelectorAll("[data-layer]")) box.classList.toggle("chosen", +box.dataset.layer === state.layer);
  for (const wire of document.querySelectorAll(".wires path")) {
    wire.classList.toggle("chosen", +wire.dataset.from === state.layer || +wire.dataset.to === state.layer);
  }
  reveal();
};

// Brings the chosen layer into view, within its own pane.
const reveal = () => {
  for (const pane of [element("graph"), element("list")]) {
    const box = pane.querySelector(".node.chosen, tr.chosen");
    if (!box || pane.hidden) continue;
    const [own, outer] = [box.getBoundingClientRect(), pane.getBoundingClientRect()];
    if (own.top < outer.top + 40 || own.bottom > outer.bottom - 40) pane.scrollTop += own.top - outer.top - outer.height / 2;
    if (own.left < outer.left || own.right > outer.right) pane.scrollLeft += own.left - outer.left - (outer.width - own.width) / 2;
  }
};

const step = (list, at, by) => list[Math.min(Math.max(at + by, 0), list.length - 1)];
// The next pixel of the lattice in a direction.
const neighbour = (layer, dy, dx) => {
  const width = layer.sides[1], own = pixelsOf(layer);
  const rows = [...new Set(own.map((pixel) => Math.floor(pixel / width)))], columns = [...new Set(own.map((pixel) => pixel % width))];
  return { y: step(rows, rows.indexOf(state.y), dy), x: step(columns, columns.indexOf(state.x), dx) };
};

const KEYS = {
  ArrowUp: (layer) => neighbour(layer, -1, 0), ArrowDown: (layer) => neighbour(layer, 1, 0),
  ArrowLeft: (layer) => neighbour(layer, 0, -1), ArrowRight: (layer) => neighbour(layer, 0, 1),
  j: () => ({ layer: step(layers, state.layer, 1).index }), k: () => ({ layer: step(layers, state.layer, -1).index }),
  l: (layer) => ({ channel: step(layer.channels, layer.place.get(state.channel), 1).channel }),
  h: (layer) => ({ channel: step(layer.channels, layer.place.get(state.channel), -1).channel }),
};

const listen = () => {
  addEventListener("hashchange", () => { read(); draw(); });
  addEventListener("popstate", () => { read(); draw(); });
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/") {
      event.preventDefault();
      return element("search").focus();
    }
    const scrolls = event.key.startsWith("Arrow") && !element("map")?.contains(event.target) && event.target !== document.body;
    if (!KEYS[event.key] || scrolls) return;
    event.preventDefault();
    const onMap = event.target.id === "map";
    go(KEYS[event.key](layers[state.layer]));
    if (onMap) element("map")?.focus();
  });
  element("detail").addEventListener("click", (event) => {
    const button = event.target.closest("button"), map = event.target.closest("#map"), layer = layers[state.layer];
    if (map) {
      const box = map.getBoundingClientRect();
      const along = (at, from, size, side) => Math.min(side - 1, Math.floor(((at - from) / size) * side));
      const y = along(event.clientY, box.top, box.height, layer.sides[0]), x = along(event.clientX, box.left, box.width, layer.sides[1]);
      const [ny, nx] = nearestPixel(layer, y, x);
      go({ y: ny, x: nx });
    } else if (button?.dataset.channel) go({ channel: +button.dataset.channel });
    else if (button?.dataset.layer) go({ layer: +button.dataset.layer });
    else if (button?.dataset.map) { state.map = button.dataset.map; draw(); }
    else if (button?.dataset.all) { state.all[button.dataset.all] = true; draw(); }
  });
};
