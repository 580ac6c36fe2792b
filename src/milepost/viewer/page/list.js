// The list of episodes: columns that can be sorted, filters, marks by key, and the export of the marks. Rows exist only in view.

import { columnsOf } from "milepost/columns";
import { h, icon, notice, replace, signButton } from "milepost/dom";
import { Filters } from "milepost/filters";
import { count, plural } from "milepost/format";
import { group, showKeys } from "milepost/keys";
import { chosen, filtered, readState, tableOf, writeState } from "milepost/listing";
import { fillMarkCell, pressed, setMark } from "milepost/marks";
import { tabs } from "milepost/report";
import { Rows } from "milepost/rows";
import { exported, marks, Refused } from "milepost/source";

const ROW_PX = 34;

export class ListView {
  /** @param {import("milepost/main").App} app */
  constructor(app, query) {
    Object.assign(this, { app, state: readState(query) });
    this.title = app.dataset.name;
    this.table = tableOf(app.columns, app.dataset, this.state);
    this.rows = new Rows(ROW_PX, (place) => this.row(place));
    this.head = h("div", { class: "head", role: "row" });
    this.rows.onwidth = (scrollbar) => {
      this.head.style.marginRight = `${scrollbar}px`;
    };
    this.said = h("span", { class: "shown", role: "status" });
    this.filters = new Filters({ dataset: app.dataset, table: this.table, state: this.state, onchange: (state) => this.change(state) });
    this.filters.element.append(this.said);
    this.grid = h(
      "div",
      { class: "grid", role: "table", "aria-label": "Episodes" },
      h("div", { role: "rowgroup" }, this.head),
      this.rows.element,
    );
    this.element = h("main", { class: "list" }, this.top(), app.banner(), this.filters.element, this.grid);
    this.build();
  }

  top() {
    const { dataset, columns } = this.app;
    const models = dataset.models.map((model) => model.name).join(", ");
    return h(
      "header",
      { class: "top" },
      h("h1", {}, dataset.name),
      tabs("Episodes"),
      h("p", { class: "soft" }, `${plural(columns.index.length, "episode")} · ${plural(dataset.frames, "frame")} · ${dataset.fps} fps`),
      models && h("p", { class: "soft models", title: models }, models),
      this.app.chip(),
      h("nav", {}, !exported && this.exportMenu()),
      signButton("keys", "Keys", "?", showKeys),
    );
  }

  exportMenu() {
    const menu = h("div", { class: "menu", popover: "auto", id: "export" });
    const button = h("button", { type: "button", class: "pick", popovertarget: "export" }, icon("download"), "Export marks");
    menu.addEventListener("beforetoggle", (event) => {
      if (event.newState === "open") this.fillExport(menu, button);
    });
    return [button, menu];
  }

  async fillExport(menu, button) {
    const { mark } = this.app.columns;
    const many = (name) => mark.filter((one) => one === name).length;
    menu.style.right = `${window.innerWidth - button.getBoundingClientRect().right}px`;
    menu.style.top = `${button.getBoundingClientRect().bottom + 6}px`;
    const command = h("pre", { class: "soft" }, "…");
    const copy = h("button", { type: "button", disabled: true, onclick: () => this.copy(command.textContent) }, "Copy the command");
    replace(
      menu,
      h("p", {}, `${many("keep")} keep · ${many("drop")} drop · ${many("unsure")} unsure`),
      h(
        "p",
        { class: "choices" },
        h("a", { class: "button", href: "/api/marks.json", download: "marks.json" }, "JSON"),
        h("a", { class: "button", href: "/api/marks.csv", download: "marks.csv" }, "CSV"),
      ),
      h("p", { class: "soft" }, "To delete the dropped episodes with LeRobot:"),
      command,
      copy,
    );
    try {
      const answer = await marks();
      command.textContent = answer.lerobot_delete_command || "No episode is marked to drop.";
      copy.disabled = !answer.lerobot_delete_command;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      command.textContent = error.message;
    }
  }

  async copy(text) {
    await navigator.clipboard.writeText(text);
    notice("Copied");
  }

  /** Another filter or order: into the address, and shown. */
  change(state) {
    const rebuilt = state.model !== this.state.model || state.head !== this.state.head;
    this.state = this.filters.state = state;
    this.app.rememberList(writeState(state));
    history.replaceState(null, "", this.app.listAddress());
    this.rows.element.scrollTop = 0;
    if (rebuilt) this.table = tableOf(this.app.columns, this.app.dataset, state);
    this.app.model = this.table.model;
    this.app.head = this.table.head ?? this.app.head;
    this.build();
  }

  /** More columns are there. */
  counted() {
    this.table = tableOf(this.app.columns, this.app.dataset, this.state);
    this.filters.take(this.table);
    this.build();
  }

  build() {
    const { dataset } = this.app;
    this.columns = columnsOf(this.table, dataset);
    this.grid.style.setProperty("--columns", this.columns.map((column) => column.width).join(" "));
    replace(
      this.head,
      this.columns.map((column) => this.headCell(column)),
    );
    const places = chosen(this.table, this.state);
    this.app.setOrder(places);
    this.grid.setAttribute("aria-rowcount", String(places.length + 1));
    this.rows.show(places);
    const all = this.table.size;
    replace(this.said, filtered(this.state) ? `${count(places.length)} of ${count(all)}` : plural(all, "episode"));
    this.grid.classList.toggle("none", places.length === 0);
  }

  headCell({ name, label, hint, words }) {
    const { sort } = this.state;
    const now = sort.replace(/^-/, "") === name ? (sort.startsWith("-") ? "descending" : "ascending") : "none";
    const next = now === "ascending" ? `-${name}` : name;
    return h(
      "div",
      { role: "columnheader", "aria-sort": now, class: words ? "words" : "" },
      h(
        "button",
        { type: "button", title: hint || label, onclick: () => this.change({ ...this.state, sort: next }) },
        label,
        h("i", { "aria-hidden": "true" }),
      ),
    );
  }

  row(place) {
    const index = this.table.index[place];
    const row = h("div", {
      role: "row",
      class: "row",
      onclick: (event) => {
        if (!event.target.closest("a, button")) this.open(place);
      },
    });
    row.append(
      ...this.columns.map((column) => {
        const cell = h("div", { role: "cell", class: column.words ? "words" : "" }, column.mark ? null : column.cell(place));
        if (column.mark) fillMarkCell(row, cell, this.table.mark[place], (mark) => this.mark(place, mark));
        return cell;
      }),
    );
    row.dataset.episode = index;
    return row;
  }

  open(place) {
    location.hash = `#/episode/${this.table.index[place]}`;
  }

  async mark(place, mark) {
    const note = this.table.note[this.table.index[place]] || "";
    const done = setMark(this.app.columns, place, { mark: pressed(this.table.mark[place], mark), note });
    this.rows.refresh(place);
    await done;
    this.rows.refresh(place);
  }

  /** The row of the episode that was open last. */
  find(index) {
    const at = this.rows.places.indexOf(this.app.columns.index.indexOf(index));
    if (at >= 0) this.rows.select(at, { center: true });
  }

  keys() {
    const { rows } = this;
    const marking = (mark) => {
      if (rows.selected >= 0) this.mark(rows.places[rows.selected], mark);
    };
    const list = group("List", [
      [["ArrowDown", "j"], "Next row", () => rows.move(1)],
      [["ArrowUp"], "Row before", () => rows.move(-1)],
      [["PageDown"], "Page down", () => rows.move(rows.page)],
      [["PageUp"], "Page up", () => rows.move(-rows.page)],
      [["Home"], "First row", () => rows.move(-Infinity)],
      [["End"], "Last row", () => rows.move(Infinity)],
      [["Enter"], "Open the episode", () => rows.selected >= 0 && this.open(rows.places[rows.selected])],
      [["/"], "Search", () => this.filters.search.focus()],
    ]);
    const review = group("Review", [
      [["k"], "Keep", () => marking("keep")],
      [["d"], "Drop", () => marking("drop")],
      [["u"], "Unsure", () => marking("unsure")],
    ]);
    return this.app.canMark ? [...list, ...review] : list;
  }

  close() {
    this.rows.close();
  }
}
