// All that is shown of the chosen layer.
"use strict";
// A channel of a sprite as a background: of all its thumbnails one is seen.
const tile = (sprite, at, of) =>
  `background-size:${100 * of}% 100%;background-position:${of > 1 ? (100 * at) / (of - 1) : 0}% 0;` +
  `aspect-ratio:${sprite.width}/${sprite.height}`;

const WHY = {
  all: "",
  asked: "; it was asked for",
  class: "; a likely class",
  feeds: "; the next layer's shown channels are made of it",
  active: "; one of the most active",
  branch: "; a branch shows it",
};

const thumbnails = (layer) => {
  const [sprite, of] = [layer[state.map], layer.channels.length];
  const most = Math.max(...layer.channels.map((shown) => shown.mean_absolute), 1e-30);
  const classes = layer.index === layers.length - 1 ? explanation.classes : [];
  const one = (shown, i) => {
    const value = sprite ? shown.mean : valueAt(layer, 0, shown.channel);
    const size = Math.min(100, (100 * Math.abs(value)) / most);
    const image = sprite
      ? `<span class="tile" style="${tile(sprite, i, of)}"></span>`
      : `<span class="single ${value < 0 ? "minus" : "plus"}" style="--size:${size}%"></span>`;
    const dead = shown.zeros === 1 && sprite ? " · dead" : "";
    const mean = `${text(shown.mean)} ± ${text(shown.deviation)}`;
    const range = `${text(shown.min)} to ${text(shown.max)}`;
    const zeros = `${(100 * shown.zeros).toFixed(0)} % zeros`;
    const title = `channel ${shown.channel}: mean ${mean}, ${range}, ${zeros}${WHY[shown.why]}`;
    return `<button type="button" class="thumb" data-channel="${shown.channel}" title="${title}"
      aria-pressed="${shown.channel === state.channel}">${image}
      <span class="name">${escape(classes[shown.channel] ?? shown.channel)}</span>
      <span class="soft">${sprite ? "⌀ " : ""}${text(value)}${dead}</span></button>`;
  };
  const style = sprite ? ` style="--sprite:url(${sprite.uri})"` : "";
  return `<div class="thumbs${sprite ? "" : " flat"}"${style}>${layer.channels.map(one).join("")}</div>`;
};

// The chosen channel, large, with the pixels that can be looked into.
const bigMap = (layer) => {
  const sprite = layer[state.map];
  if (!sprite) return "";
  const [h, w] = layer.sides, side = Math.max(h, w), all = pixelsOf(layer);
  const dot = (pixel) =>
    `<circle cx="${(pixel % w) + 0.5}" cy="${Math.floor(pixel / w) + 0.5}" r="${side / 110}"/>`;
  const dots = isComplete(layer) ? "" : all.map(dot).join("");
  const size = Math.max(1, side / 28);
  const [left, top] = [state.x + 0.5 - size / 2, state.y + 0.5 - size / 2];
  const what = state.map === "maps" ? "Channel" : "Gradient of channel";
  const where = dots
    ? `The page has the numbers of the ${all.length} dotted pixels; a click takes the nearest.`
    : "Click a pixel.";
  const style = tile(sprite, layer.place.get(state.channel), layer.channels.length);
  return `<figure><div class="map" id="map" role="img" tabindex="0"
    aria-label="Channel ${state.channel}: click a pixel, or move by the arrow keys"
    style="--sprite:url(${sprite.uri});${style}">
    <svg viewBox="0 0 ${w} ${h}" preserveAspectRatio="none">${dots}
    <rect x="${left}" y="${top}" width="${size}" height="${size}"/></svg></div>
    <figcaption>${what} ${state.channel}: blue below 0, red above. ${where}</figcaption></figure>`;
};

// What of the image the pixel can depend on.
const fieldMap = (layer) => {
  const image = document.querySelector(".seen img");
  if (!image || layer.index === 0) return "";
  const [h, w] = layers[0].sides;
  const [top, bottom, left, right] = receptiveField(layer, state.y, state.x);
  const [rows, columns] = [bottom - top + 1, right - left + 1];
  const whole = rows === h && columns === w;
  const size = rows < 1 ? "padding alone" : whole ? "the whole image" : `${rows} × ${columns} pixels`;
  const inner = rows < 1 ? "" : `M${left} ${top}V${bottom + 1}H${right + 1}V${top}Z`;
  return `<figure><div class="field"><img class="pixels" src="${image.src}" alt="">
    <svg viewBox="0 0 ${w} ${h}"><path d="M0 0H${w}V${h}H0Z${inner}"/>
    <rect x="${left}" y="${top}" width="${Math.max(columns, 0)}" height="${Math.max(rows, 0)}"/></svg></div>
    <figcaption>Its receptive field in the image: ${size}.</figcaption></figure>`;
};

const facts = (layer) => {
  const { windows } = layer;
  const all = [
    ["output", shape(layer)],
    ["parameters", count(layer.parameters)],
    ["FLOPs", flops(layer.flops)],
    ["output bytes", count(layer.bytes)],
  ];
  if (windows && !layer.kind.startsWith("Global")) {
    all.push(["window", windows.kernel.join(" × ")], ["stride", windows.stride.join(" × ")]);
    if (windows.dilation.some((d) => d > 1)) all.push(["dilation", windows.dilation.join(" × ")]);
    if (windows.before.some((b) => b > 0)) all.push(["zeros before", windows.before.join(", ")]);
  }
  if (layer.factors) all.push(["factor", layer.factors.join(" × ")]);
  if (layer.activation !== "linear") all.push(["activation", layer.activation]);
  all.push(["mean |activation|", text(layer.mean_absolute)]);
  all.push([layer.flat ? "zeros" : "dead channels", `${count(layer.dead)} of ${count(layer.sides[2])}`]);
  all.push(...(layer.measured ?? []));
  const one = ([name, value]) => `<div><dt>${name}</dt><dd>${escape(value)}</dd></div>`;
  return `<dl class="facts">${all.map(one).join("")}</dl>`;
};

const filters = (layer) => {
  const [sprite, all] = [layer.filters, layer.sides[2]];
  if (!sprite) return "";
  const one = (_, i) => `<span title="filter ${i}" style="${tile(sprite, i, all)}"></span>`;
  return `<h4>Filters</h4>
    <p class="note">Red, green and blue weights of each; grey is 0, each is in its own scale.</p>
    <div class="filters" style="--sprite:url(${sprite.uri})">
    ${Array.from({ length: all }, one).join("")}</div>`;
};

const neighbours = (layer) => {
  const one = (i) => `<button type="button" class="to" data-layer="${i}">${escape(layers[i].name)}</button>`;
  const links = (indices) => [...new Set(indices)].map(one).join(" ");
  const from = layer.inputs.length ? `reads ${links(layer.inputs)}` : "the image";
  const to = layer.readers.length ? `read by ${links(layer.readers)}` : "the output";
  return `<p class="soft ways">${from} · ${to}</p>`;
};

const mapsHeading = (layer) => {
  const [shown, all] = [layer.channels.length, layer.sides[2]];
  const classes = layer.channels[0].why === "class";
  const chosen = classes
    ? "the likeliest classes"
    : "half of them what the next layer's shown channels are made of, half the most active";
  const of = shown < all ? `${shown} of ${count(all)}: ${chosen}` : `all ${shown}`;
  const button = (map, name) =>
    `<button type="button" data-map="${map}" aria-pressed="${state.map === map}">${name}</button>`;
  const both = `<span class="tabs">${button("maps", "values")}${button("gradient_maps", "gradients")}</span>`;
  return `<div class="heading"><h4>${layer.flat ? "Outputs" : "Feature maps"}</h4>
    <span class="soft">${of}</span>${layer.gradient_maps ? both : ""}</div>`;
};

const NO_STEP = "no step of its own: it is part of another layer's weights, or there is nothing to do";

const detail = (layer) => {
  const where = place(layer, state.y, state.x, state.channel);
  const value = valueAt(layer, state.y * layer.sides[1] + state.x, state.channel);
  const data =
    `data-layer-name="${escape(layer.name)}" data-channel-number="${state.channel}" data-y="${state.y}" ` +
    `data-x="${state.x}" data-class="${explanation.target.class}"`;
  return `<header><h3>${escape(layer.name)} <span class="soft">${layer.kind}</span></h3>
    ${neighbours(layer)}</header>
    ${facts(layer)}
    <p class="note">Plan at inference: ${escape(layer.step?.[1] ?? NO_STEP)}.</p>
    ${mapsHeading(layer)}
    ${thumbnails(layer)}
    <div class="pixel">
    <div class="looks">${bigMap(layer)}${fieldMap(layer)}</div>
    <div class="numbers">
    <h4 id="where" ${data}>${escape(layer.name)} ${where} = <output>${text(value)}</output></h4>
    ${asked ? `<p class="note asked" role="status">${escape(asked)}</p>` : ""}
    <h5>How it was computed</h5>${forwardHtml(layer, state)}
    <h5>Where its gradient came from</h5>${backwardHtml(layer, state)}
    </div></div>
    ${filters(layer)}
    <div class="histograms">
    ${histogram("activations", layer.activations)}
    ${histogram("gradients by activations", layer.gradients)}
    ${histogram("weights", layer.weights)}
    ${histogram("gradients by weights", layer.weight_gradients)}
    ${memory(layer.step?.[0])}
    </div>`;
};

// Brings the chosen layer into view, within its own pane.
const reveal = () => {
  for (const pane of [element("graph"), element("list")]) {
    const box = pane.querySelector(".node.chosen, tr.chosen");
    if (!box || pane.hidden) continue;
    const [own, outer] = [box.getBoundingClientRect(), pane.getBoundingClientRect()];
    const [above, below] = [own.top < outer.top + 40, own.bottom > outer.bottom - 40];
    if (above || below) pane.scrollTop += own.top - outer.top - outer.height / 2;
    const [left, right] = [own.left < outer.left, own.right > outer.right];
    if (left || right) pane.scrollLeft += own.left - outer.left - (outer.width - own.width) / 2;
  }
};

const draw = () => {
  const layer = layers[state.layer];
  if (!layer[state.map]) state.map = "maps";
  element("detail").innerHTML = detail(layer);
  for (const box of document.querySelectorAll("#graph [data-layer], #list [data-layer]")) {
    box.classList.toggle("chosen", Number(box.dataset.layer) === state.layer);
  }
  for (const wire of document.querySelectorAll(".wires path")) {
    const ends = [Number(wire.dataset.from), Number(wire.dataset.to)];
    wire.classList.toggle("chosen", ends.includes(state.layer));
  }
  reveal();
};
