// The time axis under the pictures: rows that share one scale, a playhead, scrubbing, zoom. What the rows show is theirs.
// A frame is a cell [i, i + 1) of the axis: bands begin and end on its edges, points and the playhead stand in its middle.

import { h, replace, styled } from "milepost/dom";
import { clock } from "milepost/format";

const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
const LABEL_PX = 76;
const FEWEST = 12;

/** Which frames are in view: [from, to). */
export class Scale {
  constructor(length) {
    Object.assign(this, { length, from: 0, to: length });
  }

  /** Where a place on the axis is, in percent of the width. */
  percent(place) {
    return (100 * (place - this.from)) / (this.to - this.from);
  }

  get zoomed() {
    return this.from > 0 || this.to < this.length;
  }

  /** Show `factor` times as many frames, keeping `place` where it is. */
  zoom(factor, place) {
    const span = Math.min(this.length, Math.max(Math.min(FEWEST, this.length), (this.to - this.from) * factor));
    const share = (place - this.from) / (this.to - this.from);
    this.put(place - share * span, span);
  }

  put(from, span = this.to - this.from) {
    this.from = Math.min(this.length - span, Math.max(0, from));
    this.to = this.from + span;
  }

  /** Turn the page if this frame is out of view. */
  follow(frame) {
    const span = this.to - this.from;
    if (frame >= this.from && frame + 1 <= this.to) return false;
    this.put(frame + 1 > this.to ? frame - 0.1 * span : frame - 0.9 * span);
    return true;
  }
}

/** @param {import("milepost/player").Player} player */
export class Timeline {
  constructor(player) {
    this.player = player;
    this.scale = new Scale(player.length);
    this.layers = [];
    this.ruler = h("div", { class: "ruler track" });
    this.playhead = h(
      "div",
      {
        class: "playhead",
        role: "slider",
        tabindex: "0",
        "aria-label": "Frame",
        "aria-valuemin": "0",
        "aria-valuemax": String(player.length - 1),
      },
      h("span", { class: "knob" }),
    );
    this.ghost = h("div", { class: "ghost", hidden: true }, h("span", {}));
    this.overlay = h("div", { class: "overlay" }, this.ghost, this.playhead);
    this.thumb = h("span", {});
    this.overview = h("div", { class: "overview", hidden: true, "aria-hidden": "true" }, this.thumb);
    this.element = h("section", { class: "timeline", "aria-label": "Timeline" }, h("div", { class: "label" }), this.ruler, this.overlay);
    this.listen();
    this.onframe();
  }

  /** A row under the ones there: a label and a track. layout(scale) is called whenever another part of time is in view. */
  row(label, track, layout, className = "") {
    const name = h("div", { class: `label ${className}` }, label);
    track.classList.add("track", ...className.split(" ").filter(Boolean));
    this.element.append(name, track);
    if (layout) this.layers.push(layout);
    layout?.(this.scale);
    return { name, track };
  }

  done() {
    this.element.append(h("div", { class: "label" }), this.overview);
    this.layout();
  }

  listen() {
    const { element, player } = this;
    player.addEventListener("frame", () => this.onframe());
    element.addEventListener("pointerdown", (event) => this.grab(event));
    element.addEventListener("pointermove", (event) => this.hover(event));
    element.addEventListener("pointerleave", () => {
      this.ghost.hidden = true;
    });
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(element);
  }

  /** The place on the axis under the pointer, not rounded. */
  placeAt(clientX) {
    const box = this.ruler.getBoundingClientRect();
    return this.scale.from + ((clientX - box.left) / box.width) * (this.scale.to - this.scale.from);
  }

  frameAt(clientX) {
    return Math.min(this.player.length - 1, Math.max(0, Math.floor(this.placeAt(clientX))));
  }

  grab(event) {
    if (event.button || !event.target.closest(".track") || event.target.closest(".handle, .happening")) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.player.seek(this.frameAt(event.clientX));
    const move = (moved) => this.player.seek(this.frameAt(moved.clientX));
    const end = () => {
      this.element.removeEventListener("pointermove", move);
      this.element.removeEventListener("lostpointercapture", end);
    };
    this.element.addEventListener("pointermove", move);
    this.element.addEventListener("lostpointercapture", end);
  }

  hover(event) {
    const box = this.ruler.getBoundingClientRect();
    const inside = event.clientX >= box.left && event.clientX < box.right && !event.target.closest(".handle");
    this.ghost.hidden = !inside || event.buttons > 0;
    if (this.ghost.hidden) return;
    const frame = this.frameAt(event.clientX);
    this.ghost.style.left = `${this.scale.percent(frame + 0.5)}%`;
    this.ghost.firstChild.textContent = `${frame}`;
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.004), this.placeAt(event.clientX));
    } else if (this.scale.zoomed && (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY))) {
      event.preventDefault();
      const share = (event.deltaX || event.deltaY) / this.ruler.clientWidth;
      this.scale.put(this.scale.from + share * (this.scale.to - this.scale.from));
      this.layout();
    }
  }

  /** Zoom about a place; the playhead if none is given. factor 0 shows everything. */
  zoom(factor, place = this.player.frame + 0.5) {
    if (factor === 0) this.scale.put(0, this.scale.length);
    else this.scale.zoom(factor, place);
    this.layout();
  }

  layout() {
    this.ticks();
    for (const layer of this.layers) layer(this.scale);
    this.overview.hidden = !this.scale.zoomed;
    const { from, to, length } = this.scale;
    styled(this.thumb, { left: `${(100 * from) / length}%`, width: `${(100 * (to - from)) / length}%` });
    this.place();
  }

  ticks() {
    const { fps } = this.player;
    const { from, to } = this.scale;
    const least = ((to - from) / fps) * (LABEL_PX / Math.max(1, this.ruler.clientWidth));
    const step = STEPS_S.find((one) => one >= least) || STEPS_S.at(-1);
    const marks = [];
    for (let s = Math.ceil(from / fps / step - 1e-9) * step; s * fps < to; s += step) {
      if (this.scale.percent(s * fps) > 97) break;
      const text = step < 1 ? clock(s).replace(/0$/, "") : clock(s).replace(/\.\d+$/, "");
      marks.push(h("span", { class: "tick", style: { left: `${this.scale.percent(s * fps)}%` } }, text));
    }
    replace(this.ruler, marks);
  }

  onframe() {
    const { frame, fps, playing } = this.player;
    this.playhead.setAttribute("aria-valuenow", String(frame));
    this.playhead.setAttribute("aria-valuetext", `frame ${frame}, ${(frame / fps).toFixed(2)} seconds`);
    if (playing && this.scale.follow(frame)) this.layout();
    else this.place();
  }

  place() {
    const at = this.scale.percent(this.player.frame + 0.5);
    this.playhead.style.left = `${at}%`;
    this.playhead.hidden = at < 0 || at > 100;
  }

  close() {
    this.observer.disconnect();
  }
}
