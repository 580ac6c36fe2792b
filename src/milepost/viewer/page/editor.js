// The tools beside the annotation: split, rename, add, remove, undo, redo, save; faults and a file changed underneath are said here.
// Commands act on the segment under the playhead.

import { h, notice, replace, signButton } from "milepost/dom";
import { bandPlot } from "milepost/curves";
import { plural } from "milepost/format";
import { add, at, following, gapAt, remove, rename, split } from "milepost/segments";
import { stageMenu } from "milepost/stagemenu";

const MODIFIER = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl+";

export class Editor {
  /** stages: the head's palette of names and colours; saved(answer): called when it is on disk. */
  constructor({ draft, player, stages, saved }) {
    Object.assign(this, { draft, player, stages, saved });
    this.band = null;
    this.now = h("span", { class: "now" });
    this.buttons = {
      split: signButton("split", "Split at the playhead", "S", () => this.split()),
      rename: signButton("rename", "Rename the stage", "R", () => this.rename()),
      add: signButton("add", "Add a stage in the gap", "A", () => this.add()),
      remove: signButton("remove", "Remove the stage", "Delete", () => this.remove()),
      undo: signButton("undo", "Undo", `${MODIFIER}Z`, () => draft.undo()),
      redo: signButton("redo", "Redo", `${MODIFIER}Shift+Z`, () => draft.redo()),
    };
    this.save = h("button", { type: "button", class: "save", title: `Save  (${MODIFIER}S)`, onclick: () => this.store() }, "Save");
    const { split: cut, rename: name, add: plus, remove: cross, undo, redo } = this.buttons;
    this.tools = h(
      "div",
      { class: "edit", role: "toolbar", "aria-label": "Annotation" },
      this.now,
      h("span", { class: "group" }, cut, name, plus, cross),
      h("span", { class: "group" }, undo, redo),
      this.save,
    );
    this.trouble = h("div", { class: "trouble", "aria-live": "assertive" });
    this.onchange = () => this.update();
    draft.addEventListener("change", this.onchange);
    player.addEventListener("frame", this.onchange);
    this.update();
  }

  get place() {
    return at(this.draft.segments, this.player.frame);
  }

  update() {
    const { draft, player, place } = this;
    const one = draft.segments[place];
    replace(this.now, one ? h("b", {}, one.name) : "No stage here", one && h("span", { class: "soft" }, ` ${one.start}–${one.stop}`));
    const gap = gapAt(draft.segments, player.frame, player.length);
    this.buttons.split.disabled = !one || one.start === player.frame;
    this.buttons.rename.disabled = this.buttons.remove.disabled = !one;
    this.buttons.add.disabled = !gap;
    this.buttons.undo.disabled = !draft.past.length;
    this.buttons.redo.disabled = !draft.future.length;
    this.save.disabled = !draft.dirty || draft.saving || draft.conflict !== null;
    this.save.textContent = draft.saving ? "Saving…" : draft.dirty ? "Save" : "Saved";
    this.save.classList.toggle("dirty", draft.dirty);
    if (this.shown !== draft.conflict || this.said !== draft.faults) this.explain();
  }

  menu(heading, chosen, onpick, anchor = this.band.track.querySelector(".current") || this.band.track) {
    stageMenu(anchor, { heading, names: this.stages.names, palette: this.stages.of, chosen, onpick });
  }

  split() {
    const { player, draft, place } = this;
    const one = draft.segments[place];
    if (!one || one.start === player.frame) return;
    const frame = player.frame;
    this.menu(`From frame ${frame} on`, following(this.stages.names, one.name), (name) => draft.change(split(draft.segments, frame, name)));
  }

  rename(anchor) {
    const { place, draft } = this;
    if (place < 0) return;
    const { name, start } = draft.segments[place];
    this.menu("This stage is", name, (chosen) => draft.change(rename(draft.segments, at(draft.segments, start), chosen)), anchor);
  }

  add() {
    const { draft, player } = this;
    const frame = player.frame;
    if (!gapAt(draft.segments, frame, player.length)) return;
    const before = draft.segments.filter((one) => one.stop <= frame).at(-1);
    const chosen = before ? following(this.stages.names, before.name) : this.stages.names[0];
    this.menu("Add a stage here", chosen, (name) => draft.change(add(draft.segments, frame, name, player.length)));
  }

  remove(gap = false) {
    if (this.place >= 0) this.draft.change(remove(this.draft.segments, this.place, gap));
  }

  /** Save; new names go along with the whole list in order. */
  async store() {
    const { draft, stages } = this;
    if (!draft.dirty || draft.conflict) return;
    const fresh = [...new Set(draft.segments.map((one) => one.name))].filter((name) => !stages.known.includes(name));
    const answer = await draft.save(fresh.length ? stages.inOrder : undefined);
    if (!answer) return;
    const repairs = answer.repairs || [];
    const words = repairs.map((one) => one.message || String(one)).join("; ");
    const news = fresh.length ? `; the dataset has ${plural(fresh.length, "stage")} more: ${fresh.join(", ")}` : "";
    notice(
      repairs.length ? `Saved, with ${plural(repairs.length, "repair")}: ${words}${news}` : `Episode ${draft.index} saved${news}`,
      "good",
      repairs.length || news ? 10 : 3,
    );
    this.saved(answer);
  }

  explain() {
    const { draft } = this;
    this.shown = draft.conflict;
    this.said = draft.faults;
    replace(this.trouble, draft.conflict && this.conflict(draft.conflict), draft.faults.length > 0 && this.faults(draft.faults));
  }

  faults(faults) {
    return h(
      "div",
      { class: "faults", role: "alert" },
      h("b", {}, "Not saved."),
      h(
        "ul",
        {},
        faults.map((fault) => h("li", {}, fault)),
      ),
    );
  }

  conflict({ segments }) {
    const { length, fps } = this.player;
    const values = new Array(length).fill(null);
    const names = [...new Set(segments.map((one) => one.name))];
    for (const one of segments) values.fill(names.indexOf(one.name), one.start, one.stop);
    const { track, layout } = bandPlot(values, (k) => this.stages.of(names[k]), fps);
    track.classList.add("track", "theirs");
    layout({ percent: (place) => (100 * place) / length });
    return h(
      "div",
      { class: "conflict", role: "alert" },
      h("p", {}, h("b", {}, "The annotation changed on disk since this page read it. "), "Nothing was written. On disk now:"),
      segments.length ? track : h("p", { class: "soft" }, "no annotation"),
      h(
        "div",
        { class: "choices" },
        h("button", { type: "button", onclick: () => this.draft.takeTheirs() }, "Take what is on disk"),
        h(
          "button",
          {
            type: "button",
            onclick: () => {
              this.draft.keepMine();
              this.store();
            },
          },
          "Keep mine and save over it",
        ),
      ),
    );
  }

  close() {
    this.draft.removeEventListener("change", this.onchange);
    this.player.removeEventListener("frame", this.onchange);
  }
}
