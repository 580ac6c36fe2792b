// One episode: pictures, time axis, values at the frame, events, the tools to edit its annotation, its mark. This file puts them together.
// The pictures and the clock live as long as the view; what belongs to a head (sparse, dense) is made anew when another is chosen.

import { Band } from "milepost/band";
import { bandPlot, curvePlot, eventPlot, weightPlot } from "milepost/curves";
import { h, icon, released, replace, signButton } from "milepost/dom";
import { draftOf } from "milepost/draft";
import { Editor } from "milepost/editor";
import { clock, number, title } from "milepost/format";
import { group, showKeys } from "milepost/keys";
import { MarkCard, outcome } from "milepost/marks";
import { StagePalette } from "milepost/palette";
import { Player } from "milepost/player";
import { EventList, factsCard, Readout } from "milepost/readout";
import { episode as fetchEpisode } from "milepost/source";
import { Timeline } from "milepost/timeline";
import { Videos } from "milepost/videos";

const RATES = [0.25, 0.5, 1, 1.5, 2, 4];

/** What is drawn dashed: the simulator's truth, or what the annotation comes to, which is no evidence for itself. */
const truthName = (data) => (data.truth_source === "annotation" ? "as annotated" : "truth");

export class EpisodeView {
  /** Asks for the episode's data first. @param {import("milepost/main").App} app */
  static async open(app, index, frame) {
    return new EpisodeView(app, await fetchEpisode(index), frame);
  }

  constructor(app, episode, frame) {
    Object.assign(this, { app, episode });
    this.place = app.columns.index.indexOf(episode.index);
    this.player = new Player(episode.length, episode.fps);
    if (frame > 0) this.player.seek(frame);
    this.videos = new Videos(episode, this.player);
    this.marks = new MarkCard(app.columns, this.place);
    this.heads = [...new Set([...Object.keys(episode.heads), ...Object.keys(app.dataset.heads)])];
    if (!this.heads.length) this.heads = ["sparse"];
    this.transport = this.makeTransport();
    this.lower = h("div", { class: "lower" });
    this.side = h("aside", { class: "side" });
    this.element = h("main", { class: "episode" }, this.top(), app.banner(), this.videos.element, this.side, this.lower);
    this.showHead(this.heads.includes(app.head) ? app.head : this.heads[0]);
    this.player.addEventListener("frame", () => this.remember());
    this.player.addEventListener("state", () => this.showState());
    this.showState();
    this.title = `Episode ${episode.index} · ${app.dataset.name}`;
  }

  top() {
    const { episode, app } = this;
    const order = app.order();
    const at = order.indexOf(this.place);
    const task = typeof episode.task === "number" ? app.dataset.tasks[episode.task] : episode.task;
    const kind = episode.facts?.kind ?? app.columns.kind?.[this.place];
    return h(
      "header",
      { class: "top" },
      h("a", { class: "sign", href: app.listAddress(), "aria-label": "All episodes", title: "All episodes  (Esc)" }, icon("back")),
      h("h1", {}, `Episode ${episode.index}`),
      kind && h("span", { class: "badge" }, title(kind)),
      outcome(episode.success),
      h("p", { class: "task", title: task }, task),
      app.chip(episode.index),
      h(
        "nav",
        { "aria-label": "Episodes" },
        signButton("previous", "Previous episode", "P", () => this.go(-1), { disabled: at === 0 }),
        h("span", { class: "soft" }, at < 0 ? "not in the list" : `${at + 1} of ${order.length}`),
        signButton("next", "Next episode", "N", () => this.go(1), { disabled: at === order.length - 1 }),
      ),
      signButton("keys", "Keys", "?", showKeys),
    );
  }

  makeTransport() {
    const { player } = this;
    this.playButton = signButton("play", "Play", "Space", () => player.toggle(), { class: "sign play" });
    this.time = h("span", { class: "clock" });
    this.rate = h(
      "select",
      { "aria-label": "Speed", title: "Speed  (< >)", onchange: (event) => player.setRate(Number(event.target.value)) },
      RATES.map((rate) => h("option", { value: String(rate), selected: rate === 1 }, `${rate}×`)),
    );
    player.addEventListener("frame", () => this.showTime());
    this.showTime();
    return h(
      "div",
      { class: "transport", role: "group", "aria-label": "Playback" },
      signButton("previous", "Frame back", "←", () => player.step(-1)),
      this.playButton,
      signButton("next", "Frame forward", "→", () => player.step(1)),
      this.time,
      this.rate,
    );
  }

  showTime() {
    const { player } = this;
    this.time.textContent = `${clock(player.frame / player.fps)} / ${clock(player.length / player.fps)}`;
  }

  showState() {
    const { playing, rate } = this.player;
    replace(this.playButton, icon(playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.rate.value = String(rate);
    this.remember();
  }

  /** Everything that belongs to one head, at the frame that is shown. */
  showHead(head) {
    this.closeHead();
    this.app.head = head;
    this.head = head;
    const { episode, player, app } = this;
    this.data = episode.heads[head] || { curves: {}, segments: [], version: "" };
    this.models = Object.keys(this.data.curves || {});
    this.model = this.models.includes(app.model) ? app.model : this.models[0];
    this.draft = draftOf(episode.index, head, this.data);
    this.stages = new StagePalette({ ...app.dataset.heads[head], ...this.data }, app.dataset, this.draft);
    this.timeline = new Timeline(player);
    this.editor = app.dataset.editable
      ? new Editor({ draft: this.draft, player, stages: this.stages, saved: (answer) => this.saved(answer) })
      : null;
    this.fillTimeline();
    this.fillSide();
    const why = !app.dataset.editable && app.dataset.why_not_editable;
    replace(
      this.lower,
      this.editor?.trouble,
      h(
        "div",
        { class: "bar" },
        this.transport,
        this.headPicker(),
        this.zooms(),
        this.editor ? this.editor.tools : why && h("p", { class: "soft why" }, why),
      ),
      this.timeline.element,
    );
    this.timeline.layout();
  }

  headPicker() {
    if (this.heads.length < 2) return null;
    return h(
      "div",
      { class: "choices heads", role: "group", "aria-label": "Head" },
      this.heads.map((head) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(head === this.head),
            onclick: () => this.showHead(head),
          },
          title(head),
        ),
      ),
    );
  }

  get otherHead() {
    return this.heads[(this.heads.indexOf(this.head) + 1) % this.heads.length];
  }

  zooms() {
    const { timeline } = this;
    return h(
      "div",
      { class: "group zooms", role: "group", "aria-label": "Zoom" },
      h(
        "button",
        { type: "button", class: "sign", "aria-label": "Zoom out", title: "Zoom out  (−)", onclick: () => timeline.zoom(2) },
        "−",
      ),
      h("button", { type: "button", class: "sign fit", title: "Show all  (0)", onclick: () => timeline.zoom(0) }, "Fit"),
      h(
        "button",
        { type: "button", class: "sign", "aria-label": "Zoom in", title: "Zoom in  (+)", onclick: () => timeline.zoom(0.5) },
        "+",
      ),
    );
  }

  fillTimeline() {
    const { timeline, data, player, episode } = this;
    this.eventRow = timeline.row("Events", h("div", {}), (scale) => this.eventLayout?.(scale), "events");
    for (const part of Object.values(this.eventRow)) part.hidden = !this.models.length;
    this.showEvents();
    this.lines = this.models.map((name, k) => ({ name, values: data.curves[name], className: `model-${k % 12}` }));
    if (data.truth) this.lines.push({ name: truthName(data), values: data.truth, className: "truth" });
    if (this.lines.length) {
      this.curves = curvePlot(this.lines, episode.length);
      const scaleWords = [1, 0.5, 0].map((y) => h("span", { class: "y" }, number(y, 1)));
      timeline.row(["Progress", h("span", { class: "ys" }, scaleWords)], this.curves.track, this.curves.layout, "progress");
      this.onframe = () => this.curves.place(player.frame, timeline.scale);
      player.addEventListener("frame", this.onframe);
      timeline.layers.push(this.onframe);
    }
    this.band = new Band({
      draft: this.draft,
      player,
      timeline,
      palette: this.stages.of,
      editable: this.editor !== null,
      onmenu: (cell) => this.editor?.rename(cell),
    });
    if (this.editor) this.editor.band = this.band;
    timeline.row("Annotation", this.band.track, this.band.layout, "annotated");
    for (const name of this.models) if (data.probabilities?.[name]) this.stageRow(name, data.probabilities[name]);
    if (data.true_stage && data.truth_source !== "annotation") this.stageRow("truth", data.true_stage);
    if (episode.weight) {
      const weights = weightPlot(episode.weight);
      timeline.row("Weight", weights.track, weights.layout, "weight");
    }
    timeline.done();
  }

  stageRow(name, values) {
    const { track, layout } = bandPlot(values, this.stages.of, this.episode.fps);
    this.timeline.row(h("span", { title: `Stages: ${name}` }, name), track, layout, "stages");
  }

  eventsOf(model) {
    return this.episode.events?.[model]?.[this.head] || [];
  }

  showEvents() {
    const events = this.eventsOf(this.model);
    const { track, layout } = eventPlot(events, (event) => this.player.seek(event.start));
    this.eventRow.track.replaceChildren(...track.childNodes);
    this.eventRow.track.style.setProperty("--lanes", track.style.getPropertyValue("--lanes"));
    this.eventLayout = layout;
    layout(this.timeline.scale);
  }

  fillSide() {
    const { data, player, episode } = this;
    const rows = this.lines.map((line) => ({
      name: line.name,
      className: line.className,
      kind: "curve",
      values: line.values,
      stages: line.className === "truth" ? data.true_stage : data.probabilities?.[line.name],
    }));
    rows.push({ name: "annotation", className: "band", stages: this.annotated() });
    if (episode.weight) rows.push({ name: "weight", className: "area", values: episode.weight });
    this.readout = new Readout({
      player,
      rows,
      palette: this.stages.of,
      onhide: (row, off) =>
        this.curves.hide(
          this.lines.findIndex((line) => line.name === row.name),
          off,
        ),
    });
    this.onchange = () => this.readout.change("annotation", this.annotated());
    this.draft.addEventListener("change", this.onchange);
    this.events = new EventList({
      player,
      models: this.models,
      model: this.model,
      eventsOf: (model) => this.eventsOf(model),
      onmodel: (model) => this.chooseModel(model),
    });
    replace(
      this.side,
      this.readout.element,
      this.marks.element,
      this.models.length > 0 && this.events.element,
      factsCard(episode, ["kind", "success"]),
    );
  }

  chooseModel(model) {
    this.model = this.app.model = model;
    this.events.show(model);
    this.showEvents();
  }

  /** The draft's stage of every frame, by name. */
  annotated() {
    const stages = new Array(this.episode.length).fill(null);
    for (const one of this.draft.segments) stages.fill(one.name, one.start, one.stop);
    return stages;
  }

  /** It is on disk: take the stages' colours and the truth as they are now. */
  async saved(answer) {
    if (answer.heads) this.app.dataset.heads = answer.heads;
    const { index } = this.episode;
    const [episode] = await Promise.all([fetchEpisode(index), this.app.refresh()]);
    await released();
    if (this.closed) return;
    this.episode = episode;
    this.marks.listing = this.app.columns;
    this.showHead(this.head);
  }

  go(step) {
    const order = this.app.order();
    const next = order[order.indexOf(this.place) + step];
    if (next !== undefined) location.hash = `#/episode/${this.app.columns.index[next]}`;
  }

  /** The frame in the address, once it rests: a reload comes back to it. */
  remember() {
    clearTimeout(this.resting);
    if (this.player.playing) return;
    this.resting = setTimeout(() => {
      const here = `#/episode/${this.episode.index}`;
      const still = location.hash.split("?")[0] === here; // else another episode is on its way
      if (!this.closed && still) history.replaceState(null, "", `${here}?frame=${this.player.frame}`);
    }, 200);
  }

  borderJump(direction) {
    const at = this.draft.segments
      .flatMap((one) => [one.start, one.stop])
      .filter((frame) => frame < this.episode.length)
      .sort((a, b) => a - b);
    const found = direction > 0 ? at.find((frame) => frame > this.player.frame) : at.filter((frame) => frame < this.player.frame).at(-1);
    if (found !== undefined) this.player.seek(found);
  }

  faster(direction) {
    const at = RATES.indexOf(this.player.rate) + direction;
    if (RATES[at]) this.player.setRate(RATES[at]);
  }

  keys() {
    return [...this.timeKeys(), ...(this.editor ? this.editKeys() : []), ...this.reviewKeys()];
  }

  timeKeys() {
    const { player } = this;
    const second = Math.round(player.fps);
    return group("Time", [
      [[" "], "Play or pause", () => player.toggle()],
      [["ArrowLeft", ","], "Frame back", () => player.step(-1)],
      [["ArrowRight", "."], "Frame forward", () => player.step(1)],
      [["Shift+ArrowLeft"], "Second back", () => player.step(-second)],
      [["Shift+ArrowRight"], "Second forward", () => player.step(second)],
      [["Home"], "First frame", () => player.seek(0)],
      [["End"], "Last frame", () => player.seek(player.length - 1)],
      [["e"], "Next event", () => this.events.jump(1)],
      [["Shift+e"], "Previous event", () => this.events.jump(-1)],
      [["b"], "Next boundary", () => this.borderJump(1)],
      [["Shift+b"], "Previous boundary", () => this.borderJump(-1)],
      [["<"], "Slower", () => this.faster(-1)],
      [[">"], "Faster", () => this.faster(1)],
      [["+", "="], "Zoom in (Ctrl wheel)", () => this.timeline.zoom(0.5)],
      [["-"], "Zoom out", () => this.timeline.zoom(2)],
      [["0"], "Show all", () => this.timeline.zoom(0)],
    ]);
  }

  editKeys() {
    return group("Annotation", [
      [["s"], "Split at the playhead", () => this.editor.split()],
      [["r"], "Rename the stage", () => this.editor.rename()],
      [["a"], "Add a stage in a gap", () => this.editor.add()],
      [["Delete", "Backspace"], "Remove and extend the neighbour", () => this.editor.remove()],
      [["Shift+Delete"], "Remove and leave a gap", () => this.editor.remove(true)],
      [["Mod+z"], "Undo", () => this.draft.undo()],
      [["Mod+Shift+z", "Mod+y"], "Redo", () => this.draft.redo()],
      [["Mod+s"], "Save", () => this.editor.store(), true],
    ]);
  }

  reviewKeys() {
    const marking = [
      [["k"], "Keep", () => this.marks.press("keep")],
      [["d"], "Drop", () => this.marks.press("drop")],
      [["u"], "Unsure", () => this.marks.press("unsure")],
      [["c"], "Write a note", () => this.marks.note.focus()],
    ];
    return group("Review", [
      ...(this.app.canMark ? marking : []),
      ...(this.heads.length > 1 ? [[["h"], "Other head", () => this.showHead(this.otherHead)]] : []),
      [["n", "]"], "Next episode", () => this.go(1)],
      [["p", "["], "Previous episode", () => this.go(-1)],
      [["Escape"], "All episodes", () => (location.hash = this.app.listAddress())],
    ]);
  }

  closeHead() {
    if (!this.timeline) return;
    if (this.onframe) this.player.removeEventListener("frame", this.onframe);
    this.onframe = null;
    this.draft.removeEventListener("change", this.onchange);
    for (const part of [this.timeline, this.band, this.readout, this.events, this.editor]) part?.close();
  }

  close() {
    this.closed = true;
    clearTimeout(this.resting);
    this.closeHead();
    this.player.close();
    this.videos.close();
  }
}
