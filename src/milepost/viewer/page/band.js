// The annotation as a band that can be edited: segments, and a handle on every border, for the mouse and for the arrow keys.
// It changes the draft and nothing else. While a border is dragged the video shows the frame behind it.

import { h, replace } from "milepost/dom";
import { span, stageFill } from "milepost/curves";
import { borders, moveBorder, reach } from "milepost/segments";

export class Band {
  /** @param {import("milepost/draft").Draft} draft  palette(name) -> {name, colour, hatched} */
  constructor({ draft, player, timeline, palette, editable, onmenu }) {
    Object.assign(this, { draft, player, timeline, palette, editable, onmenu });
    this.track = h("div", { class: "annotation", role: "group", "aria-label": `Annotation, ${draft.head}` });
    this.layout = (scale) => this.place(scale);
    this.onchange = () => this.update();
    this.onframe = () => this.current();
    draft.addEventListener("change", this.onchange);
    player.addEventListener("frame", this.onframe);
    this.render();
  }

  /** Elements are made anew only when their number or names change: a handle must outlive its drag. */
  update() {
    const shape = JSON.stringify([
      this.draft.segments.map((one) => one.name),
      borders(this.draft.segments).map((one) => [one.left, one.right]),
    ]);
    if (shape !== this.shape && !this.draft.held) this.render();
    else this.place(this.timeline.scale);
    this.shape = this.draft.held ? this.shape : shape;
  }

  render() {
    const focused = [...this.track.children].indexOf(document.activeElement);
    const { segments } = this.draft;
    this.cells = segments.map((one, k) => this.cell(one, k));
    this.handles = this.editable ? borders(segments).map((border, k) => this.handle(border, k)) : [];
    const nothing = h("p", { class: "nothing" }, this.editable ? "Not annotated. Press A to add a stage." : "Not annotated.");
    replace(this.track, this.cells, this.handles, !segments.length && nothing);
    this.place(this.timeline.scale);
    if (focused >= 0) this.track.children[Math.min(focused, this.track.children.length - 1)]?.focus?.({ preventScroll: true });
  }

  cell(one, k) {
    const { colour, hatched } = this.palette(one.name);
    const cell = h("div", { class: "segment", role: "button", tabindex: "0" }, h("span", {}, one.name));
    cell.addEventListener("focus", () => this.visit(k));
    if (this.editable) {
      cell.addEventListener("dblclick", () => this.onmenu(cell));
      cell.addEventListener("keydown", (event) => {
        if (event.key === "Enter") this.onmenu(cell);
      });
    }
    return stageFill(cell, colour, hatched);
  }

  /** Focus by keyboard takes the playhead along. */
  visit(k) {
    const one = this.draft.segments[k];
    const inside = one.start <= this.player.frame && this.player.frame < one.stop;
    if (!inside && this.track.children[k].matches(":focus-visible")) this.player.seek(one.start);
  }

  handle(border, k) {
    const names = [border.left, border.right].map((place) => (place < 0 ? "no stage" : this.draft.segments[place].name));
    return h("div", {
      class: "handle",
      role: "slider",
      tabindex: "0",
      "aria-label": `Boundary between ${names[0]} and ${names[1]}`,
      onpointerdown: (event) => this.drag(event, k),
      onkeydown: (event) => this.nudge(event, k),
    });
  }

  place(scale) {
    const { segments } = this.draft;
    const found = borders(segments);
    this.cells.forEach((cell, k) => {
      const one = segments[k];
      span(cell, one, scale);
      cell.setAttribute("aria-label", `${one.name}, frames ${one.start} to ${one.stop}`);
      cell.title = `${one.name}  [${one.start}, ${one.stop})`;
    });
    this.handles.forEach((handle, k) => this.placeHandle(handle, found[k], scale));
    this.current();
  }

  placeHandle(handle, border, scale) {
    const at = scale.percent(border.frame);
    handle.style.left = `${at}%`;
    handle.hidden = at < -0.01 || at > 100.01;
    const [lowest, highest] = reach(this.draft.segments, border, this.player.length);
    handle.setAttribute("aria-valuemin", lowest);
    handle.setAttribute("aria-valuemax", highest);
    handle.setAttribute("aria-valuenow", border.frame);
    handle.setAttribute("aria-valuetext", `frame ${border.frame}, ${(border.frame / this.player.fps).toFixed(2)} seconds`);
  }

  /** Outline the segment under the playhead: the one that commands act on. */
  current() {
    const { frame } = this.player;
    this.cells.forEach((cell, k) => {
      const one = this.draft.segments[k];
      cell.classList.toggle("current", one.start <= frame && frame < one.stop);
    });
  }

  /** Show the first frame behind a border; at an open end the last one before it. */
  look(k) {
    const border = borders(this.draft.segments)[k];
    this.player.seek(border.right >= 0 ? border.frame : border.frame - 1);
  }

  drag(event, k) {
    if (event.button) return;
    event.preventDefault();
    event.stopPropagation();
    const handle = this.handles[k];
    const offset = this.timeline.placeAt(event.clientX) - borders(this.draft.segments)[k].frame;
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    handle.classList.add("dragged");
    this.draft.hold();
    this.look(k);
    const move = (moved) => this.put(k, this.timeline.placeAt(moved.clientX) - offset);
    const escape = (pressed) => {
      if (pressed.key === "Escape") this.endDrag(stop, () => this.draft.release());
    };
    const end = () => this.endDrag(stop, () => this.draft.drop());
    const stop = () => {
      handle.classList.remove("dragged");
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("lostpointercapture", end);
      handle.removeEventListener("keydown", escape);
      if (handle.hasPointerCapture(event.pointerId)) handle.releasePointerCapture(event.pointerId);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("lostpointercapture", end);
    handle.addEventListener("keydown", escape);
  }

  endDrag(stop, settle) {
    stop();
    settle();
  }

  put(k, frame) {
    const border = borders(this.draft.segments)[k];
    this.draft.show(moveBorder(this.draft.segments, border, frame, this.player.length));
    this.look(k);
  }

  nudge(event, k) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -this.player.fps, PageUp: this.player.fps };
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const border = borders(this.draft.segments)[k];
    const frame = border.frame + Math.round(step) * (event.shiftKey ? Math.round(this.player.fps) : 1);
    this.draft.change(moveBorder(this.draft.segments, border, frame, this.player.length));
    this.look(k);
  }

  close() {
    this.draft.removeEventListener("change", this.onchange);
    this.player.removeEventListener("frame", this.onframe);
  }
}
