// The theme: the system's, light, dark, in turn; remembered where the browser lets a page remember.
"use strict";
(() => {
  const root = document.documentElement;
  const button = document.querySelector(".theme");
  const names = ["auto", "light", "dark"];
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const show = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  const wanted = location.hash.match(/^#theme=(\w+)$/)?.[1] ?? kept();
  let theme = names.includes(wanted) ? wanted : "auto";
  show(theme);
  button.addEventListener("click", () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    show(theme);
    try { localStorage.setItem("theme", theme); } catch { /* It is only for this visit, then. */ }
  });

  // How many images there are and how many of them came: a test (or a reader) can see it.
  const count = () => {
    const images = [...document.images];
    root.dataset.images = images.length;
    root.dataset.loaded = images.filter((image) => image.complete && image.naturalWidth > 0).length;
  };
  addEventListener("load", count);
})();
