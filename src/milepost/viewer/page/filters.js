// The filters above the list: what they are and the elements that set them. A change goes to the address, and the list follows that.

import { h, icon, replace } from "milepost/dom";
import { title } from "milepost/format";

const RANGES = [
  ["final", "Final progress", 0.05],
  ["weight", "Weight kept", 0.05],
  ["disagreement", "Disagreement", 0.05],
  ["length", "Frames", 1],
];

/** state: what is chosen now; onchange(state) with the new one. */
export class Filters {
  constructor({ dataset, table, state, onchange }) {
    Object.assign(this, { dataset, table, state, onchange });
    this.search = h("input", {
      type: "search",
      placeholder: "Task, kind, note or number",
      "aria-label": "Search",
      value: state.text || "",
      oninput: (event) => this.set("text", event.target.value),
    });
    this.more = h("div", { class: "ranges", popover: "auto", id: "ranges" }, h("p", {}, "Ranges"), this.ranges());
    this.rangeButton = h("button", { type: "button", class: "pick", popovertarget: "ranges", onclick: () => this.placeRanges() }, "Ranges");
    this.clear = h("button", { type: "button", class: "plain", onclick: () => this.reset() }, "Clear");
    this.selects = h("span", { class: "selects" }, this.choices());
    this.element = h(
      "div",
      { class: "filters", role: "search" },
      h("label", { class: "searchbox" }, icon("search"), this.search),
      this.selects,
      this.rangeButton,
      this.more,
      this.clear,
    );
    this.mark();
  }

  /** There is more to choose by. */
  take(table) {
    this.table = table;
    if (!this.selects.contains(document.activeElement)) replace(this.selects, this.choices());
    this.mark();
  }

  set(key, value) {
    this.state = { ...this.state, [key]: value };
    this.mark();
    this.onchange(this.state);
  }

  choices() {
    const { table, dataset } = this;
    const has = (values) => values.some((value) => value !== null && value !== undefined);
    return [
      has(table.success) &&
        this.choice("success", "Outcome", [
          ["yes", "Success"],
          ["no", "Failure"],
          ["unknown", "Not known"],
        ]),
      Object.keys(table.events).length > 0 &&
        this.choice("event", "Event", [["any", "Any event"], ...dataset.event_kinds.map((kind) => [kind, title(kind)])]),
      this.choice("mark", "Mark", [
        ["keep", "Keep"],
        ["drop", "Drop"],
        ["unsure", "Unsure"],
        ["none", "Not marked"],
      ]),
      Object.keys(dataset.heads).length > 0 &&
        this.choice("annotated", "Annotation", [
          ["yes", "Annotated"],
          ["no", "Not annotated"],
        ]),
      dataset.models.length > 1 &&
        this.choice(
          "model",
          null,
          dataset.models.map((model) => [model.name, model.name]),
          "Curves of",
        ),
      table.heads.length > 1 &&
        this.choice(
          "head",
          null,
          table.heads.map((head) => [head, title(head)]),
          "Head",
        ),
    ];
  }

  /** A select; `any` is what it says when nothing is chosen, null where something always is. */
  choice(key, any, options, label = any) {
    const select = h(
      "select",
      { "aria-label": label, title: label, "data-key": any ? key : null, onchange: (event) => this.set(key, event.target.value) },
      any && h("option", { value: "" }, any),
      options.map(([value, words]) => h("option", { value, selected: this.state[key] === value }, words)),
    );
    return select;
  }

  ranges() {
    return RANGES.filter(([name]) => this.table[name].some((value) => value !== null)).map(([name, words, step]) => {
      const field = (end, text) =>
        h("input", {
          type: "number",
          step: String(step),
          placeholder: text,
          "aria-label": `${words} ${text}`,
          value: this.state[`${name}_${end}`] ?? "",
          "data-range": `${name}_${end}`,
          oninput: (event) => this.set(`${name}_${end}`, event.target.value),
        });
      return h("div", { class: "range" }, h("span", {}, words), field("min", "from"), field("max", "to"));
    });
  }

  placeRanges() {
    const box = this.rangeButton.getBoundingClientRect();
    this.more.style.left = `${Math.min(box.left, window.innerWidth - 330)}px`;
    this.more.style.top = `${box.bottom + 6}px`;
  }

  reset() {
    const { sort, model, head } = this.state;
    this.state = Object.fromEntries(Object.entries({ sort, model, head }).filter(([, value]) => value));
    this.search.value = "";
    this.element.querySelectorAll("[data-range]").forEach((field) => {
      field.value = "";
    });
    this.element.querySelectorAll("select[data-key]").forEach((select) => {
      select.value = "";
    });
    this.mark();
    this.onchange(this.state);
  }

  mark() {
    const ranged = Object.keys(this.state).filter((key) => /_(min|max)$/.test(key) && this.state[key] !== "");
    replace(this.rangeButton, ranged.length ? `Ranges (${ranged.length})` : "Ranges");
    this.rangeButton.classList.toggle("on", ranged.length > 0);
    this.element
      .querySelectorAll("select[data-key]")
      .forEach((select) => select.classList.toggle("on", Boolean(this.state[select.dataset.key])));
    this.clear.hidden = !Object.entries(this.state).some(([key, value]) => value && !["sort", "model", "head"].includes(key));
  }
}
