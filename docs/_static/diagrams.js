// Draw the diagrams of a page, and draw them again when the page turns dark or light.
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function pageIsDark() {
  const chosen = document.body.dataset.theme;
  return chosen === "dark" || (chosen !== "light" && systemIsDark.matches);
}

// Each diagram's text makes room for a box to draw in.
const diagrams = [...document.querySelectorAll("pre.mermaid")].map((element) => {
  const box = document.createElement("div");
  box.className = "diagram";
  element.replaceWith(box);
  return { box, text: element.textContent };
});

if (diagrams.length) {
  const { default: mermaid } = await import("./vendor/mermaid/mermaid.esm.min.mjs");
  const { fontFamily } = getComputedStyle(document.body);
  let drawing = Promise.resolve();
  let drawnDark = null;

  async function draw() {
    if (drawnDark === pageIsDark()) return;
    drawnDark = pageIsDark();
    mermaid.initialize({ startOnLoad: false, theme: drawnDark ? "dark" : "neutral", fontFamily });
    for (const [i, { box, text }] of diagrams.entries()) {
      box.innerHTML = (await mermaid.render(`diagram-${i}`, text)).svg;
      const svg = box.firstElementChild;
      svg.style.minWidth = `min(${svg.viewBox.baseVal.width}px, 40rem)`; // on a phone: scroll, do not shrink
    }
  }

  const redraw = () => (drawing = drawing.then(draw));
  systemIsDark.addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["data-theme"] });
  redraw();
}
