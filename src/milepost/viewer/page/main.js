// The beginning: asks for the dataset and its episodes, shows the view the address names (#/ or #/episode/12?frame=33), says what is wrong.
// It keeps what both views share: the columns, the order of the list, the head and model last chosen.

import { h, icon, notice, replace } from "milepost/dom";
import { changes, unsaved } from "milepost/draft";
import { EpisodeView } from "milepost/episode";
import { plural } from "milepost/format";
import { useKeys } from "milepost/keys";
import { ListView } from "milepost/list";
import { chosen, readState, tableOf } from "milepost/listing";
import { hasReport, ReportView } from "milepost/report";
import { dataset, episodes, events, exported, Refused } from "milepost/source";

export class App {
  constructor(data, columns) {
    Object.assign(this, { dataset: data, columns, view: null, turn: 0, query: "", places: null, model: null, head: null });
    this.columns.note ||= {};
    this.canMark = !exported;
    window.addEventListener("hashchange", () => this.route());
    window.addEventListener("beforeunload", (event) => {
      if (unsaved().length) event.preventDefault();
    });
    document.addEventListener("click", (event) => {
      if (event.detail) event.target.closest?.("button")?.blur();
    });
  }

  /** Read the columns again: an annotation was saved. */
  async refresh() {
    const fresh = await episodes();
    fresh.note ||= {};
    this.columns = fresh;
    this.gather();
  }

  /** Events and disagreement come when they are counted; the list is shown before. */
  async gather() {
    while (this.columns.ready === false) {
      const found = await events();
      Object.assign(this.columns, { ready: found.ready, success: found.success, disagreement: found.disagreement });
      for (const [model, heads] of Object.entries(found.models)) {
        for (const [head, { events: counted }] of Object.entries(heads)) this.columns.models[model][head].events = counted;
      }
      this.places = null;
      this.view?.counted?.();
    }
  }

  rememberList(query) {
    this.query = query;
    this.places = null;
  }

  listAddress() {
    return this.query ? `#/?${this.query}` : "#/";
  }

  setOrder(places) {
    this.places = places;
  }

  /** The list's rows in its order: what next and previous follow. */
  order() {
    if (!this.places) {
      const state = readState(this.query);
      this.places = chosen(tableOf(this.columns, this.dataset, state), state);
    }
    return this.places;
  }

  /** What is wrong with files of the dataset: said above everything until it is dismissed. */
  banner() {
    const problems = this.dataset.problems || [];
    if (!problems.length || this.dismissed) return null;
    const box = h(
      "div",
      { class: "banner", role: "alert" },
      icon("warning"),
      h(
        "ul",
        {},
        problems.map((text) => h("li", {}, text)),
      ),
    );
    box.append(
      h(
        "button",
        {
          type: "button",
          class: "sign",
          "aria-label": "Dismiss",
          onclick: () => {
            this.dismissed = true;
            box.remove();
          },
        },
        icon("remove"),
      ),
    );
    return box;
  }

  /** Says that there are changes in other episodes that are not on disk, and leads there. */
  chip(here = null) {
    const chip = h("a", { class: "unsaved", hidden: true });
    const update = () => {
      if (!chip.isConnected && chip.shown) {
        changes.removeEventListener("change", update);
        return;
      }
      const open = unsaved().filter((draft) => draft.index !== here);
      chip.hidden = !open.length;
      if (!open.length) return;
      chip.shown = true;
      chip.href = `#/episode/${open[0].index}`;
      chip.textContent = open.length === 1 ? `Episode ${open[0].index} not saved` : `${plural(open.length, "episode")} not saved`;
    };
    changes.addEventListener("change", update);
    update();
    return chip;
  }

  async route() {
    const turn = ++this.turn;
    const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
    const found = path.match(/^\/episode\/(\d+)$/);
    const before = this.view;
    try {
      if (found) await this.openEpisode(turn, Number(found[1]), Number(new URLSearchParams(query).get("frame")) || 0);
      else if (hasReport && (path === "/report" || path === "")) this.show(new ReportView(this));
      else this.openList(query, before);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      notice(error.message, "bad");
      if (!before) location.hash = "#/";
    }
  }

  openList(query, before) {
    this.rememberList(query);
    const view = new ListView(this, query);
    this.show(view);
    if (before?.episode) view.find(before.episode.index);
    view.rows.element.focus({ preventScroll: true });
  }

  async openEpisode(turn, index, frame) {
    const view = await EpisodeView.open(this, index, frame);
    if (turn === this.turn) this.show(view);
    else view.close();
  }

  show(view) {
    this.view?.close();
    this.view = view;
    document.title = view.title;
    useKeys(view.keys());
    replace(document.getElementById("app"), view.element);
  }
}

async function begin() {
  try {
    const [data, columns] = await Promise.all([dataset(), episodes()]);
    const app = new App(data, columns);
    await app.route();
    await app.gather();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    replace(document.getElementById("app"), h("div", { class: "fatal", role: "alert" }, icon("warning"), h("p", {}, error.message)));
  }
}

begin();
