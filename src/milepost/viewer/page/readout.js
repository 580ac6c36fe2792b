// What is true at the frame shown: number and time, every curve's value and stage, the truth, the annotation, the weight; and the events.
// Its rows are the legend of the curves too: a click hides one, and the first model's events are those on the time axis.

import { h, icon, replace } from "milepost/dom";
import { stageFill } from "milepost/curves";
import { clock, eventSize, number, seconds, title } from "milepost/format";

/** rows: [{name, className, values, stages: (number|null)[]|null, kind}], palette(stage) -> {name, colour, hatched}. */
export class Readout {
  constructor({ player, rows, palette, onhide }) {
    Object.assign(this, { player, rows, palette, onhide, off: new Set() });
    this.frame = h("input", {
      type: "number",
      min: "0",
      max: String(player.length - 1),
      "aria-label": "Frame",
      onchange: (event) => {
        player.seek(Number(event.target.value) || 0);
        this.frame.value = player.frame;
      },
      onkeydown: (event) => event.key === "Enter" && setTimeout(() => this.frame.blur()),
      onblur: () => this.update(),
    });
    this.time = h("span", { class: "time" });
    this.lines = rows.map((row, k) => this.line(row, k));
    this.element = h(
      "section",
      { class: "card readout", "aria-label": "At this frame" },
      h("header", {}, h("h2", {}, "Frame"), this.frame, h("span", { class: "soft" }, `of ${player.length}`), this.time),
      h(
        "div",
        { class: "values" },
        this.lines.map((line) => line.element),
      ),
    );
    this.onframe = () => this.update();
    player.addEventListener("frame", this.onframe);
    this.update();
  }

  line(row, k) {
    const value = h("span", { class: "value" });
    const stage = h("span", { class: "stage" });
    const sample = h("i", { class: `sample ${row.className}` });
    const name =
      row.kind === "curve"
        ? h(
            "button",
            { type: "button", class: "name", "aria-pressed": "true", title: "Show or hide this curve", onclick: () => this.hide(k) },
            sample,
            h("span", {}, row.name),
          )
        : h("span", { class: "name" }, sample, h("span", {}, row.name));
    return { element: h("div", { class: "line" }, name, value, stage), value, stage, name };
  }

  hide(k) {
    const off = !this.off.delete(k);
    if (off) this.off.add(k);
    this.lines[k].name.setAttribute("aria-pressed", String(!off));
    this.onhide(this.rows[k], off);
  }

  update() {
    const { frame, fps } = this.player;
    if (document.activeElement !== this.frame) this.frame.value = frame;
    this.time.textContent = clock(frame / fps);
    this.rows.forEach((row, k) => this.fill(row, this.lines[k], frame));
  }

  fill(row, line, frame) {
    line.value.textContent = row.values ? number(row.values[frame]) : "";
    const stage = row.stages ? row.stages[frame] : null;
    if (line.shown === stage) return;
    line.shown = stage;
    const known = stage !== null && stage !== undefined && stage !== -1;
    const { name, colour, hatched } = known ? this.palette(stage) : {};
    replace(line.stage, known && stageFill(h("i", { class: "swatch" }), colour, hatched), known && h("span", { title: name }, name));
  }

  /** The annotation is edited: its stages by frame are new. */
  change(name, stages) {
    const row = this.rows.find((one) => one.name === name);
    if (row) row.stages = stages;
    this.update();
  }

  close() {
    this.player.removeEventListener("frame", this.onframe);
  }
}

/** The events of one model, to be jumped to; the one at the playhead is marked. */
export class EventList {
  constructor({ player, models, eventsOf, onmodel, model }) {
    Object.assign(this, { player, eventsOf });
    this.list = h("ol", {});
    this.count = h("span", { class: "soft" });
    const picker =
      models.length > 1 &&
      h(
        "select",
        { "aria-label": "Events of", onchange: (event) => onmodel(event.target.value) },
        models.map((name) => h("option", { value: name, selected: name === model }, name)),
      );
    this.element = h(
      "section",
      { class: "card happenings", "aria-label": "Events" },
      h("header", {}, h("h2", {}, "Events"), this.count, picker),
      this.list,
    );
    this.onframe = () => this.mark();
    player.addEventListener("frame", this.onframe);
    this.show(model);
  }

  show(model) {
    const { player } = this;
    this.events = this.eventsOf(model);
    this.count.textContent = this.events.length ? String(this.events.length) : "none";
    this.items = this.events.map((event) =>
      h(
        "button",
        { type: "button", onclick: () => player.seek(event.start) },
        h("i", { class: `sign ${event.kind}` }),
        h("span", {}, title(event.kind)),
        h("span", { class: "soft size" }, eventSize(event)),
        h("span", { class: "soft when" }, seconds(event.start / player.fps)),
      ),
    );
    replace(
      this.list,
      this.items.map((item) => h("li", {}, item)),
    );
    this.mark();
  }

  mark() {
    const { frame } = this.player;
    this.items.forEach((item, k) => item.classList.toggle("here", this.events[k].start <= frame && frame < this.events[k].stop));
  }

  /** Go to the next beginning of an event, or the one before. */
  jump(direction) {
    const starts = this.events.map((event) => event.start);
    const found = direction > 0 ? starts.find((at) => at > this.player.frame) : starts.filter((at) => at < this.player.frame).at(-1);
    if (found !== undefined) this.player.seek(found);
  }

  close() {
    this.player.removeEventListener("frame", this.onframe);
  }
}

/** What the dataset says of the episode beyond what is drawn. */
export function factsCard(episode, names) {
  const facts = Object.entries(episode.facts || {}).filter(([key]) => !names.includes(key));
  if (!facts.length) return null;
  const words = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));
  return h(
    "details",
    { class: "card facts" },
    h("summary", {}, "Facts", icon("next")),
    h(
      "dl",
      {},
      facts.map(([key, value]) => [h("dt", {}, title(key)), h("dd", {}, words(value))]),
    ),
  );
}
