// The graph and histograms, as SVG; and numbers as text.
"use strict";
const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// 5 digits, without an e where that is readable.
const text = (v) => {
  if (v === undefined || v === null || Number.isNaN(v)) return "–";
  if (v === 0) return "0";
  const size = Math.abs(v);
  const short = size >= 1e5 || size < 1e-3 ? v.toExponential(3) : String(Number(v.toPrecision(5)));
  return short.replaceAll("-", "−").replace("e+", "e");
};
const count = (n) => n.toLocaleString("en");
const shape = (layer) => (layer.flat ? [layer.sides[2]] : layer.sides).join(" × ");
const flops = (n) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} G` : n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : count(n);

const FAMILY = {
  Conv2D: "sum",
  Dense: "sum",
  DepthwiseConv2D: "depthwise",
  BatchNormalization: "norm",
  ReLU: "activation",
  Activation: "activation",
  Add: "join",
  Concatenate: "join",
  InputLayer: "image",
};

const LANE = 200,
  ROW = 56,
  BOX = [168, 34];
const centre = ([lane, row]) => [lane * LANE + LANE / 2, row * ROW + ROW / 2];

const graphSvg = () => {
  const { nodes, edges, lanes, rows } = explanation.layout;
  const path = ({ from, to, lane }) => {
    const [x0, y0] = centre(nodes[from]),
      [x1, y1] = centre(nodes[to]),
      [start, end] = [y0 + BOX[1] / 2, y1 - BOX[1] / 2];
    const side = lane * LANE + LANE / 2;
    if (x0 === x1 && side === x0) return `M${x0} ${start}V${end}`;
    const bend = (ax, ay, bx, by) => `C${ax} ${(ay + by) / 2} ${bx} ${(ay + by) / 2} ${bx} ${by}`;
    // Neighbours by one curve; what passes rows goes over into its lane, along it, and back.
    if (nodes[to][1] - nodes[from][1] === 1) return `M${x0} ${start}${bend(x0, start, x1, end)}`;
    const middle = (start + end) / 2;
    const [a, b] = [Math.min(start + ROW * 0.75, middle), Math.max(end - ROW * 0.75, middle)];
    return `M${x0} ${start}${bend(x0, start, side, a)}V${b}${bend(side, b, x1, end)}`;
  };
  const wires = edges.map(
    (edge) => `<path d="${path(edge)}" data-from="${edge.from}" data-to="${edge.to}"/>`,
  );
  const labels = layers.flatMap((layer, i) => {
    if (!layer.readers.length) return [];
    const [x, y] = centre(nodes[i]);
    return [`<text class="shape" x="${x + 6}" y="${y + BOX[1] / 2 + 15}">${shape(layer)}</text>`];
  });
  const boxes = layers.map((layer, i) => {
    const [x, y] = centre(nodes[i]);
    const name = layer.name.length > 25 ? `${layer.name.slice(0, 24)}…` : layer.name;
    const family = FAMILY[layer.kind] ?? "other";
    return `<g class="node ${family}" data-layer="${i}"><title>${escape(layer.name)}</title>
      <rect x="${x - BOX[0] / 2}" y="${y - BOX[1] / 2}" width="${BOX[0]}" height="${BOX[1]}" rx="6"/>
      <text x="${x}" y="${y - 3}">${escape(name)}</text>
      <text class="kind" x="${x}" y="${y + 11}">${layer.kind}</text></g>`;
  });
  const [width, height] = [lanes * LANE, rows * ROW];
  return `<svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"
    aria-label="${layers.length} layers from the image down to the output">
    <g class="wires">${wires.join("")}</g>${labels.join("")}${boxes.join("")}</svg>`;
};

const histogram = (title, values) => {
  if (!values) return "";
  const { low, high, counts, zeros, mean, deviation } = values;
  const most = Math.max(...counts, 1),
    all = zeros + counts.reduce((a, b) => a + b, 0);
  const width = 240 / counts.length;
  const bars = counts
    .map(
      (n, i) =>
        n &&
        `<rect x="${(i * width).toFixed(2)}" width="${(width - 0.6).toFixed(2)}"
    y="${(60 - (58 * n) / most - 1).toFixed(2)}" height="${((58 * n) / most + 1).toFixed(2)}"><title>${text(
      low + ((high - low) * i) / counts.length,
    )} to ${text(low + ((high - low) * (i + 1)) / counts.length)}: ${count(n)}</title></rect>`,
    )
    .filter(Boolean);
  const at = high > low ? (-low / (high - low)) * 240 : -1;
  const axis = at >= 0 && at <= 240 ? `<line x1="${at}" x2="${at}" y1="0" y2="60"/>` : "";
  const share = zeros
    ? `, ${((100 * zeros) / all).toFixed(zeros < all ? 1 : 0)} % exactly 0 (not drawn)`
    : "";
  return `<figure class="histogram"><figcaption><b>${title}</b></figcaption>
    <svg viewBox="0 0 240 60" preserveAspectRatio="none" role="img"
    aria-label="Histogram: ${title}">${axis}${bars.join("")}</svg>
    <div class="ends"><span>${text(low)}</span><span>${text(high)}</span></div>
    <p class="note">${count(all)} numbers, mean ${text(mean)} ± ${text(deviation)}${share}</p></figure>`;
};

// Bytes that are still to be read after each step of the plan; the chosen layer's step stands out.
const memory = (chosen) => {
  const { live_bytes: live } = explanation,
    most = Math.max(...live, 1),
    width = 240 / live.length;
  const bar = (bytes, i) => {
    const height = (58 * bytes) / most + 1;
    const own = i === chosen ? ' class="chosen"' : "";
    return `<rect${own} x="${(i * width).toFixed(2)}" width="${(width * 0.85).toFixed(2)}"
      y="${(60 - height).toFixed(2)}" height="${height.toFixed(2)}"><title>after step ${i + 1}: ${(
        bytes / 1e6
      ).toFixed(2)} MB</title></rect>`;
  };
  return `<figure class="histogram memory"><figcaption><b>memory over the pass</b></figcaption>
    <svg viewBox="0 0 240 60" preserveAspectRatio="none" role="img"
    aria-label="Live bytes after each step">${live.map(bar).join("")}</svg>
    <div class="ends"><span>step 1</span><span>${live.length}</span></div>
    <p class="note">Outputs still to be read after each step at inference, at most ${(most / 1e6).toFixed(
      2,
    )} MB${chosen === undefined ? "" : `; this layer's step in colour`}</p></figure>`;
};
