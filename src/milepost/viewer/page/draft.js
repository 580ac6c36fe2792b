// What is being changed of one head of one episode: its segments now, how to undo, and saving with the version it began from.
// Drafts live until the page is closed, so going to another episode loses nothing; `unsaved` says which are not on disk.

import { Refused, saveSegments } from "milepost/source";
import { same } from "milepost/segments";

const drafts = new Map();
const MOST = 500;

/** Something changed in a draft: "change" events, for whoever shows that there are unsaved ones. */
export const changes = new EventTarget();

/** The draft of this head: the one there is while it has changes or is still what is on disk, so that undo survives; else a new one. */
export function draftOf(index, head, { segments, version }) {
  const key = `${index}/${head}`;
  const found = drafts.get(key);
  if (found && (found.dirty || found.version === version)) return found;
  const made = new Draft(index, head, segments, version);
  drafts.set(key, made);
  return made;
}

/** @returns {Draft[]} the drafts with changes that are not on disk */
export const unsaved = () => [...drafts.values()].filter((draft) => draft.dirty);

export class Draft extends EventTarget {
  constructor(index, head, segments, version) {
    super();
    Object.assign(this, { index, head, segments, version, saved: segments, past: [], future: [], saving: false });
    /** @type {null | {segments: object[], version: string}} what is on disk now, if someone else changed it */
    this.conflict = null;
    /** @type {string[]} why the last save was refused */
    this.faults = [];
  }

  get dirty() {
    return !same(this.segments, this.saved);
  }

  /** One step that can be undone. The same segments again are no step. */
  change(segments) {
    if (!segments || same(segments, this.segments)) return false;
    this.past.push(this.segments);
    if (this.past.length > MOST) this.past.shift();
    this.future = [];
    this.show(segments);
    return true;
  }

  /** While dragging: shown, but no step yet. Begin with `hold`, end with `drop`. */
  hold() {
    this.held = this.segments;
  }

  drop() {
    const [from, to] = [this.held, this.segments];
    this.held = null;
    this.segments = from;
    if (!this.change(to)) this.show(from);
  }

  /** Put back what was there before the drag. */
  release() {
    const from = this.held;
    this.held = null;
    this.show(from);
  }

  show(segments) {
    this.segments = segments;
    this.faults = [];
    this.tell();
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.segments);
    this.show(this.past.pop());
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.segments);
    this.show(this.future.pop());
  }

  tell() {
    this.dispatchEvent(new Event("change"));
    changes.dispatchEvent(new Event("change"));
  }

  /**
   * Write it. Answers {repairs, heads} when it is on disk; null when it was refused, with `faults` or `conflict` saying why.
   * @param {string[]} [names] all stage names in order, when one of them is new
   */
  async save(names) {
    if (this.saving) return null;
    const sent = this.segments;
    this.saving = true;
    this.faults = [];
    this.tell();
    try {
      const body = { head: this.head, segments: sent, version: this.version };
      const answer = await saveSegments(this.index, names ? { ...body, names } : body);
      this.settle(sent, answer);
      return answer;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.refused(error);
      return null;
    } finally {
      this.saving = false;
      this.tell();
    }
  }

  settle(sent, answer) {
    this.version = answer.version;
    this.saved = answer.segments;
    if (same(this.segments, sent)) this.segments = answer.segments;
    this.conflict = null;
  }

  refused(error) {
    const { status, body } = error;
    if (status === 409) this.conflict = { segments: body.segments || [], version: body.version };
    else this.faults = body.faults?.length ? body.faults.map((fault) => fault.message || String(fault)) : [error.message];
  }

  /** Take what is on disk; mine can be had back with undo. */
  takeTheirs() {
    const { segments, version } = this.conflict;
    this.rebase(segments, version);
    this.change(segments);
    this.tell();
  }

  /** Keep mine, to be saved over what is on disk now. */
  keepMine() {
    this.rebase(this.conflict.segments, this.conflict.version);
    this.tell();
  }

  rebase(segments, version) {
    this.saved = segments;
    this.version = version;
    this.conflict = null;
  }
}
