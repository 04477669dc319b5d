// The two views of all layers: the graph, zoomed and moved, and the list; and the search over both.
"use strict";
const listHtml = () => {
  const row = (layer, i) => `<tr data-layer="${i}" tabindex="-1"><td class="text">${escape(layer.name)}
    <span class="soft">${layer.kind}</span></td><td>${shape(layer)}</td><td>${count(layer.parameters)}</td>
    <td>${flops(layer.flops)}</td><td>${text(layer.mean_absolute)}</td><td>${layer.dead || ""}</td></tr>`;
  return `<table><thead><tr><th class="text">layer</th><th>output</th><th>parameters</th><th>FLOPs</th>
    <th>mean |a|</th><th>dead</th></tr></thead><tbody>${layers.map(row).join("")}</tbody></table>`;
};

const explorer = () => {
  const [graph, list, search] = ["graph", "list", "search"].map(element);
  graph.innerHTML = graphSvg();
  list.innerHTML = listHtml();

  const svg = graph.querySelector("svg"),
    full = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
  let zoom = 1;
  // Zooms so that what is at a place of the pane stays there.
  const zoomTo = (wanted, x = graph.clientWidth / 2, y = graph.clientHeight / 2) => {
    const before = zoom;
    zoom = Math.min(Math.max(wanted, 0.05), 3);
    const at = [(graph.scrollLeft + x) / before, (graph.scrollTop + y) / before];
    svg.style.width = `${full[0] * zoom}px`;
    svg.style.height = `${full[1] * zoom}px`;
    graph.scrollLeft = at[0] * zoom - x;
    graph.scrollTop = at[1] * zoom - y;
  };
  const fit = () => zoomTo(Math.min(1, (graph.clientWidth - 4) / full[0]));
  element("zoom-in").addEventListener("click", () => zoomTo(zoom * 1.3));
  element("zoom-out").addEventListener("click", () => zoomTo(zoom / 1.3));
  element("zoom-fit").addEventListener("click", () => {
    fit();
    reveal();
  });
  graph.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const box = graph.getBoundingClientRect();
      zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );

  let held = null,
    moved = false;
  graph.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse")
      held = [event.clientX, event.clientY, graph.scrollLeft, graph.scrollTop];
    moved = false;
  });
  addEventListener("pointermove", (event) => {
    if (!held) return;
    const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
    moved ||= Math.hypot(dx, dy) > 4;
    [graph.scrollLeft, graph.scrollTop] = [held[2] - dx, held[3] - dy];
  });
  addEventListener("pointerup", () => {
    held = null;
  });

  for (const pane of [graph, list]) {
    pane.addEventListener("click", (event) => {
      const box = event.target.closest("[data-layer]");
      if (box && !(pane === graph && moved)) go({ layer: +box.dataset.layer });
    });
  }

  const tabs = [
    [element("tab-graph"), graph],
    [element("tab-list"), list],
  ];
  const show = (chosen) => {
    for (const [tab, pane] of tabs) {
      tab.setAttribute("aria-selected", pane === chosen);
      pane.hidden = pane !== chosen;
    }
    document.querySelector(".zoom").hidden = chosen !== graph;
    reveal();
  };
  tabs.forEach(([tab, pane]) => tab.addEventListener("click", () => show(pane)));

  let found = [];
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    const matches = (layer) => `${layer.name} ${layer.kind}`.toLowerCase().includes(wanted);
    found = wanted ? layers.filter(matches).map((layer) => layer.index) : [];
    for (const box of document.querySelectorAll(".node, .list tr[data-layer]")) {
      const is = found.includes(+box.dataset.layer);
      box.classList.toggle("found", is);
      box.classList.toggle("faint", Boolean(wanted) && !is);
    }
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && found.length)
      go({ layer: found.find((i) => i > state.layer) ?? found[0] });
    if (event.key === "Escape") search.blur();
  });

  // Wide networks are not shrunk until nothing can be read.
  zoomTo(Math.max(Math.min(1, (graph.clientWidth - 4) / full[0]), 0.8));
};

// The attack's slider shows the frame of its ε.
const slider = () => {
  const frames = [...document.querySelectorAll(".frame")],
    range = element("epsilon");
  range?.addEventListener("input", () => {
    frames.forEach((frame, i) => {
      frame.hidden = i !== +range.value;
    });
    element("epsilon-now").textContent = frames[range.value].dataset.epsilon;
  });
};

read();
explorer();
slider();
listen();
draw();
