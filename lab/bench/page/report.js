"use strict";

// Tables: a click on a head sorts by it, another one turns the order; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}

// Pictures: {scale: {seed: {caption, rows: {name: data URL}}}}.
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const byId = (id) => document.getElementById(id);

function fill(select, names, wanted) {
  const before = wanted ?? select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}

function start() {
  const stage = byId("stage"), lens = byId("lens");
  let at = 50, held = false, dragging = false, spot = [0.5, 0.5];

  const shown = () => pictures[byId("scale").value][byId("seed").value];
  const side = () => 256 * Number(byId("scale").value);

  function border(percent) {
    at = Math.min(100, Math.max(0, percent));
    byId("over").style.clipPath = `inset(0 0 0 ${at}%)`;
    byId("border").style.left = `${at}%`;
    stage.setAttribute("aria-valuenow", Math.round(at));
  }

  function crop() {
    const size = side(), wide = 256;
    const [x, y] = spot.map((s) => Math.round(Math.min(Math.max(s * size - wide / 2, 0), size - wide)));
    for (const pane of ["left", "right"]) {
      const style = byId(`crop-${pane}`).style;
      style.backgroundSize = `${size}px ${size}px`;
      style.backgroundPosition = `${-x}px ${-y}px`;
    }
    const scale = stage.clientWidth / size;
    Object.assign(lens.style, {
      left: `${x * scale}px`, top: `${y * scale}px`,
      width: `${wide * scale}px`, height: `${wide * scale}px`,
    });
  }

  function draw() {
    const { caption, rows } = shown();
    byId("caption").textContent = caption;
    for (const [pane, image] of [["left", "under"], ["right", "over"]]) {
      const name = byId(pane).value;
      byId(image).src = rows[name];
      byId(image).alt = `${name}: ${caption}`;
      byId(`crop-${pane}`).style.backgroundImage = `url(${rows[name]})`;
      byId(`name-${pane}`).textContent = `${name}, 100 %`;
    }
    crop();
  }

  function rows() {
    const names = Object.keys(shown().rows);
    fill(byId("left"), names, byId("left").value || "bicubic");
    fill(byId("right"), names, byId("right").value || "DemoFusion");
    draw();
  }

  function seeds() {
    fill(byId("seed"), Object.keys(pictures[byId("scale").value]));
    rows();
  }

  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  stage.addEventListener("pointerdown", (event) => {
    dragging = Math.abs(place(event)[0] * 100 - at) < 4;
    if (dragging) stage.setPointerCapture(event.pointerId);
    else { held = !held; spot = place(event); crop(); }
  });
  stage.addEventListener("pointermove", (event) => {
    if (dragging) border(100 * place(event)[0]);
    else if (!held) { spot = place(event); crop(); }
  });
  stage.addEventListener("pointerup", () => { dragging = false; });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (step) { border(at + step); event.preventDefault(); }
  });

  fill(byId("scale"), Object.keys(pictures));
  byId("scale").addEventListener("change", seeds);
  byId("seed").addEventListener("change", rows);
  for (const pane of ["left", "right"]) byId(pane).addEventListener("change", draw);
  addEventListener("resize", crop);
  seeds();
  border(50);
}
if (Object.keys(pictures).length) start();
