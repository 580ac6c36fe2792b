// A list of any length of which only what is in view exists: rows of one height, made when they come into view and dropped behind it.

import { h, replace, styled } from "milepost/dom";

const BEYOND = 5;

export class Rows {
  /** make(place) -> element. @param {number} height of a row in pixels */
  constructor(height, make) {
    Object.assign(this, { height, make, places: [], live: new Map(), selected: -1 });
    this.sheet = h("div", { class: "sheet", role: "presentation" });
    this.element = h("div", { class: "rows", role: "rowgroup", tabindex: "0", "aria-label": "Episodes" }, this.sheet);
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
  }

  /** Show these, in this order. */
  show(places) {
    this.places = places;
    this.live.clear();
    replace(this.sheet);
    this.sheet.style.height = `${places.length * this.height}px`;
    this.selected = Math.min(this.selected, places.length - 1);
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - BEYOND);
    const last = Math.min(this.places.length, Math.ceil((scrollTop + clientHeight) / this.height) + BEYOND);
    for (const [at, row] of this.live) {
      if (at >= first && at < last) continue;
      row.remove();
      this.live.delete(at);
    }
    for (let at = first; at < last; at += 1) if (!this.live.has(at)) this.put(at);
    this.onwidth?.(this.element.offsetWidth - this.element.clientWidth);
  }

  put(at) {
    const row = this.make(this.places[at], at);
    styled(row, { height: `${this.height}px`, transform: `translateY(${at * this.height}px)` });
    row.setAttribute("aria-rowindex", String(at + 2));
    row.classList.toggle("selected", at === this.selected);
    this.live.set(at, row);
    this.sheet.append(row);
  }

  /** Make one row anew: its data changed. */
  refresh(place) {
    const at = this.places.indexOf(place);
    if (!this.live.has(at)) return;
    this.live.get(at).remove();
    this.put(at);
  }

  select(at, { center = false } = {}) {
    if (!this.places.length) return;
    this.live.get(this.selected)?.classList.remove("selected");
    this.selected = Math.min(this.places.length - 1, Math.max(0, at));
    this.live.get(this.selected)?.classList.add("selected");
    this.reveal(center);
  }

  move(by) {
    this.select(this.selected + by);
  }

  reveal(center) {
    const { scrollTop, clientHeight } = this.element;
    const top = this.selected * this.height;
    const hidden = top < scrollTop || top + this.height > scrollTop + clientHeight;
    if (!hidden) return;
    const edge = top < scrollTop ? top : top + this.height - clientHeight;
    this.element.scrollTop = center ? top - clientHeight / 2 : edge;
    this.draw();
  }

  /** Rows in a page, for Page up and down. */
  get page() {
    return Math.max(1, Math.floor(this.element.clientHeight / this.height) - 1);
  }

  close() {
    this.observer.disconnect();
  }
}
