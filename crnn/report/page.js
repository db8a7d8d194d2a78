// SPDX-License-Identifier: MIT
// What a report can do with scripts and not without: sliders over the training, values under the pointer,
// text coloured by a hidden unit that the reader chooses, and a theme that is remembered.
"use strict";

document.documentElement.classList.add("scripted");

// ---- theme ----

const theme = document.getElementById("theme");
try { // some browsers store nothing for files
  theme.value = localStorage.getItem("crnn-theme") || "";
  theme.addEventListener("change", () => localStorage.setItem("crnn-theme", theme.value));
} catch { /* not remembered */ }

// ---- sliders over the training ----

for (const [number, box] of document.querySelectorAll(".by-time").entries()) {
  const parts = [...box.children];
  if (parts.length < 2) continue;
  const slider = document.createElement("div"), label = document.createElement("label");
  const range = document.createElement("input"), output = document.createElement("output");
  Object.assign(range, { type: "range", min: 0, max: parts.length - 1, id: `slider-${number}` });
  range.value = parts.length - 1;
  label.textContent = "When";
  label.htmlFor = output.htmlFor = range.id;
  slider.className = "slider";
  slider.append(label, range, output);
  const show = () => {
    parts.forEach((part, place) => { part.hidden = place != range.value; part.open = true; });
    output.textContent = parts[range.value].querySelector("summary").textContent;
    range.setAttribute("aria-valuetext", output.textContent);
  };
  range.addEventListener("input", show);
  box.classList.add("with-slider");
  box.prepend(slider);
  show();
}

// ---- values under the pointer ----

const SVG = "http://www.w3.org/2000/svg";
const readout = document.createElement("div");
readout.className = "readout";
readout.setAttribute("role", "status");

// The positions of a curve's points: a list, or "start:step" for all whole numbers of steps.
function positions(text, count) {
  if (!text.includes(":")) return text.split(",").map(Number);
  const [start, step] = text.split(":").map(Number);
  return Array.from({ length: count }, (_, place) => start + place * step);
}

function curvesOf(chart) {
  return [...chart.querySelectorAll("path[data-y]")].map((path) => {
    const y = path.dataset.y.split(",");
    return { path, name: path.dataset.name, x: positions(path.dataset.x, y.length), y };
  });
}

function nearest(values, x) {
  let best = 0;
  for (let place = 1; place < values.length; place++)
    if (Math.abs(values[place] - x) < Math.abs(values[best] - x)) best = place;
  return best;
}

function line(curve, place) {
  const row = document.createElement("div"), name = document.createElement("span"), value = document.createElement("span");
  const key = document.createElementNS(SVG, "svg"), dash = document.createElementNS(SVG, "line");
  key.setAttribute("width", 14); key.setAttribute("height", 10);
  for (const [end, at] of Object.entries({ x1: 0, x2: 14, y1: 5, y2: 5 })) dash.setAttribute(end, at);
  dash.style.stroke = curve.path.style.stroke;
  dash.style.strokeDasharray = curve.path.style.strokeDasharray;
  dash.style.strokeWidth = 2;
  key.append(dash);
  name.className = "name";
  name.textContent = curve.name;
  value.textContent = curve.y[place];
  row.append(key, name, value);
  return row;
}

for (const chart of document.querySelectorAll(".chart > svg[data-x0]")) {
  const low = Number(chart.dataset.x0), high = Number(chart.dataset.x1), figure = chart.closest("figure");
  const cursor = document.createElementNS(SVG, "line");
  let curves = null, x = null;
  if (!figure || !chart.querySelector("path[data-y]")) continue;
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", "0%"); cursor.setAttribute("y2", "100%");

  const hide = () => { cursor.remove(); readout.remove(); x = null; };
  const show = (wanted) => {
    curves ??= curvesOf(chart);
    const shown = curves.filter((curve) => getComputedStyle(curve.path).display != "none");
    if (!shown.length) return hide();
    const places = shown.map((curve) => nearest(curve.x, wanted));
    const at = shown.map((curve, number) => curve.x[places[number]]);
    x = at.reduce((best, each) => (Math.abs(each - wanted) < Math.abs(best - wanted) ? each : best));
    const percent = `${(100 * (x - low)) / (high - low)}%`;
    cursor.setAttribute("x1", percent); cursor.setAttribute("x2", percent);
    chart.append(cursor);
    const head = document.createElement("div");
    head.textContent = `${chart.dataset.x} ${x.toLocaleString("en")}`;
    // Curves that have no point near here, such as those of validation between two epochs, show their nearest one.
    readout.replaceChildren(head, ...shown.map((curve, number) => line(curve, places[number])));
    figure.append(readout);
    const box = figure.getBoundingClientRect(), plot = chart.getBoundingClientRect();
    const left = plot.left - box.left + (plot.width * (x - low)) / (high - low);
    const right = left + 14 + readout.offsetWidth > box.width;
    readout.style.left = `${Math.max(0, right ? left - 14 - readout.offsetWidth : left + 14)}px`;
    readout.style.top = `${plot.top - box.top + 6}px`;
  };
  chart.parentElement.addEventListener("pointermove", (event) => {
    const plot = chart.getBoundingClientRect();
    show(low + ((high - low) * (event.clientX - plot.left)) / plot.width);
  });
  chart.parentElement.addEventListener("pointerleave", hide);
  chart.tabIndex = 0;
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key == "Escape") return hide();
    if (!step) return;
    event.preventDefault();
    curves ??= curvesOf(chart);
    const all = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    const place = x === null ? (step > 0 ? -1 : all.length) : nearest(all, x);
    show(all[Math.min(Math.max(place + step * (event.shiftKey ? 10 : 1), 0), all.length - 1)]);
  });
}

// ---- text coloured by a hidden unit ----

const LEVELS = 8;

function colorBy(text, unit) {
  const spans = [...text.children];
  text.bytes ??= Uint8Array.from(atob(text.dataset.activity), (each) => each.charCodeAt(0));
  spans.forEach((span, place) => {
    span.surprisal ??= { class: span.className, title: span.title };
    if (unit === "") { span.className = span.surprisal.class; span.title = span.surprisal.title; return; }
    const byte = text.bytes[unit * spans.length + place], value = (byte > 127 ? byte - 256 : byte) / 127;
    const level = Math.min(Math.round(Math.abs(value) * LEVELS), LEVELS);
    span.className = `${value < 0 && level ? "n" : "p"}${level}`;
    span.title = (value * JSON.parse(text.dataset.scale)[unit]).toFixed(3);
  });
}

for (const select of document.querySelectorAll(".color-by")) {
  const controls = select.closest(".controls"), article = select.closest("article");
  const color = () => {
    controls.classList.toggle("activity", select.value !== "");
    for (const text of article.querySelectorAll(".tokens[data-activity]")) {
      const scale = JSON.parse(text.dataset.scale);
      if (Number(select.value) < scale.length) colorBy(text, select.value);
      if (select.value !== "") {
        const largest = Number(scale[select.value]).toPrecision(2);
        controls.querySelector(".by-activity .low").textContent = `−${largest}`;
        controls.querySelector(".by-activity .high").textContent = `+${largest}`;
      }
    }
  };
  select.addEventListener("change", color);
  color(); // a browser may have kept the choice of an earlier visit
}
