// What is drawn on the time axis and cannot be edited: progress curves, the weight, bands of stages, events.
// Curves are SVG in frames and progress, stretched by its viewBox, so zooming and resizing draw nothing anew. Unknown is a gap.

import { h, replace, styled, svg } from "milepost/dom";
import { eventSize, inkOn, seconds, title } from "milepost/format";
import { runs } from "milepost/segments";

const MARGIN = 0.04;

/** The path of values over frames; a gap at every null, a dot for a value between two gaps. */
export function pathOf(values) {
  let path = "";
  let drawing = false;
  values.forEach((value, frame) => {
    if (value === null || value === undefined) {
      drawing = false;
      return;
    }
    const x = frame + 0.5;
    const y = (1 - value).toFixed(4);
    path += drawing ? `L${x} ${y}` : `M${x} ${y}l.001 0`;
    drawing = true;
  });
  return path;
}

/** The area under values, in steps of whole frames. */
function areaOf(values, most) {
  let path = "";
  for (const run of stretches(values)) {
    path += `M${run.start} 1`;
    for (let frame = run.start; frame < run.stop; frame += 1) path += `V${(1 - values[frame] / most).toFixed(4)}H${frame + 1}`;
    path += "V1Z";
  }
  return path;
}

const stretches = (values) => runs(values.map((value) => (value === null ? null : 0)));

function plot(className, low, high, ...children) {
  const picture = svg("svg", { class: className, preserveAspectRatio: "none", "aria-hidden": "true" }, ...children);
  const layout = ({ from, to }) => picture.setAttribute("viewBox", `${from} ${low} ${to - from} ${high - low}`);
  return { picture, layout };
}

/** Every model's curve and the truth; `lines` are [{name, values, className}], drawn in their order. */
export function curvePlot(lines, length) {
  const grid = [0, 0.25, 0.5, 0.75, 1].map((y) => svg("line", { class: "grid", x1: 0, x2: length, y1: y, y2: y }));
  const paths = lines.map((line) => svg("path", { class: `curve ${line.className}`, d: pathOf(line.values) }));
  const { picture, layout } = plot("curves", -MARGIN, 1 + MARGIN, grid, paths);
  const track = h("div", {}, picture);
  const dots = lines.map((line) => h("i", { class: `dot ${line.className}` }));
  track.append(...dots);
  const place = (frame, scale) => dots.forEach((dot, k) => placeDot(dot, lines[k], frame, scale));
  const hide = (k, off) => {
    paths[k].classList.toggle("off", off);
    dots[k].classList.toggle("off", off);
  };
  return { track, layout, place, hide };
}

function placeDot(dot, line, frame, scale) {
  const value = line.values[frame];
  dot.hidden = value === null || value === undefined;
  if (dot.hidden) return;
  const left = scale.percent(frame + 0.5);
  dot.hidden = left < 0 || left > 100;
  styled(dot, { left: `${left}%`, top: `${(100 * (1 - value + MARGIN)) / (1 + 2 * MARGIN)}%` });
}

/** The weight of every frame as an area; 1 is a faint line where weights go above it. */
export function weightPlot(values) {
  const most = Math.max(1, ...values.filter((value) => value !== null));
  const one = most > 1 ? svg("line", { class: "grid", x1: 0, x2: values.length, y1: 1 - 1 / most, y2: 1 - 1 / most }) : null;
  const { picture, layout } = plot("weights", 0, 1, svg("path", { d: areaOf(values, most) }), one);
  return { track: h("div", {}, picture), layout, most };
}

/** A stage's colour on an element. Colours repeat after eight: then hatches tell them apart. full: its text is on the plain colour. */
export function stageFill(element, colour, hatched, full = true) {
  element.classList.toggle("hatched", hatched);
  return styled(element, { "--stage": colour, color: full ? inkOn(colour) : "" });
}

/** A band of runs of one stage each; a run too narrow for its name shows none, but says it on hover. */
export function bandPlot(values, palette, fps) {
  const track = h("div", {});
  const found = runs(values);
  const cells = found.map((run) => {
    const { name, colour, hatched } = palette(run.value);
    const text = `${name}, ${seconds(run.start / fps)} to ${seconds(run.stop / fps)}`;
    return stageFill(h("div", { class: "run", title: text }, h("span", {}, name)), colour, hatched, false);
  });
  replace(track, cells);
  const layout = (scale) => cells.forEach((cell, k) => span(cell, found[k], scale));
  return { track, layout };
}

/** Put an element over frames [start, stop). */
export function span(element, { start, stop }, scale) {
  const left = scale.percent(start);
  return styled(element, { left: `${left}%`, width: `${scale.percent(stop) - left}%` });
}

/** Events as bars that can be clicked; those that overlap go below each other. */
export function eventPlot(events, onpick) {
  const lanes = lanesOf(events);
  const track = h("div", { style: { "--lanes": String(Math.max(1, ...lanes.map((lane) => lane + 1))) } });
  const bars = events.map((event, k) =>
    h("button", {
      type: "button",
      class: `happening ${event.kind}`,
      tabindex: "-1",
      style: { "--lane": String(lanes[k]) },
      title: `${title(event.kind)} ${eventSize(event)}`,
      "aria-label": `${title(event.kind)} at frame ${event.start}`,
      onclick: () => onpick(event),
    }),
  );
  replace(track, bars);
  const layout = (scale) => bars.forEach((bar, k) => span(bar, events[k], scale));
  return { track, layout };
}

function lanesOf(events) {
  const ends = [];
  return events.map((event) => {
    let lane = ends.findIndex((end) => end <= event.start);
    if (lane < 0) lane = ends.length;
    ends[lane] = event.stop;
    return lane;
  });
}
