// Keep, drop or unsure, and a note: kept by the server in one file beside the dataset, at once. The list's columns are the page's copy.

import { h, notice, replace } from "milepost/dom";
import { exported, Refused, saveMark } from "milepost/source";

export const MARKS = [
  ["keep", "Keep", "K"],
  ["drop", "Drop", "D"],
  ["unsure", "Unsure", "U"],
];

/** A mark as a word with a colour; nothing for none. */
export const markBadge = (mark) => (mark ? h("span", { class: `mark ${mark}` }, MARKS.find(([name]) => name === mark)?.[1] || mark) : null);

/** Success or failure, in words and colour; nothing where nobody knows. */
export function outcome(success) {
  if (success === null || success === undefined) return null;
  return h("span", { class: `badge ${success ? "success" : "failure"}` }, success ? "Success" : "Failure");
}

/** Mark an episode of the list (the same mark again takes it off) and tell the server. Answers whether it is kept. */
export async function setMark(listing, place, { mark, note }) {
  const index = listing.index[place];
  const before = { mark: listing.mark[place], note: listing.note[index] || "" };
  put(listing, place, { mark, note });
  try {
    const kept = await saveMark(index, mark, note);
    put(listing, place, { mark: kept.mark, note: kept.note || "" });
    return true;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    put(listing, place, before);
    notice(`The mark of episode ${index} was not saved: ${error.message}`, "bad");
    return false;
  }
}

function put(listing, place, { mark, note }) {
  listing.mark[place] = mark;
  if (note) listing.note[listing.index[place]] = note;
  else delete listing.note[listing.index[place]];
}

/** What an episode's mark becomes when this one is pressed. */
export const pressed = (now, mark) => (now === mark ? null : mark);

/** The buttons and the note of one episode. */
export class MarkCard {
  constructor(listing, place) {
    Object.assign(this, { listing, place });
    this.buttons = MARKS.map(([mark, label, key]) =>
      h(
        "button",
        {
          type: "button",
          class: `choice ${mark}`,
          title: `${label}  (${key})`,
          onclick: () => this.press(mark),
        },
        label,
      ),
    );
    this.note = h("textarea", {
      rows: "1",
      placeholder: "Note",
      "aria-label": "Note",
      maxlength: "2000",
      readonly: exported,
      onchange: () => this.keep(this.now),
      onkeydown: (event) => this.noteKey(event),
    });
    this.element = h(
      "section",
      { class: "card review", "aria-label": "Review" },
      h("div", { class: "choices", role: "group", "aria-label": "Mark" }, this.buttons),
      this.note,
    );
    if (exported) this.readOnly();
    this.update();
  }

  get now() {
    return this.listing.mark[this.place];
  }

  readOnly() {
    this.buttons.forEach((button) => {
      button.disabled = true;
    });
    this.element.hidden = !this.now && !this.listing.note[this.listing.index[this.place]];
  }

  noteKey(event) {
    event.stopPropagation();
    if (event.key === "Escape" || (event.key === "Enter" && !event.shiftKey)) {
      event.preventDefault();
      this.note.blur();
    }
  }

  press(mark) {
    return this.keep(pressed(this.now, mark));
  }

  async keep(mark) {
    const done = setMark(this.listing, this.place, { mark, note: this.note.value.trim() });
    this.update(false);
    await done;
    this.update(false);
  }

  update(withNote = true) {
    this.buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(this.now === MARKS[k][0])));
    if (withNote) this.note.value = this.listing.note[this.listing.index[this.place]] || "";
  }
}

/** The same three as small buttons. */
function quickMarks(now, onpress) {
  return h(
    "span",
    { class: "quick" },
    MARKS.map(([mark, label, key]) =>
      h(
        "button",
        {
          type: "button",
          class: `choice ${mark}`,
          tabindex: "-1",
          title: `${label}  (${key})`,
          "aria-label": label,
          "aria-pressed": String(now === mark),
          onclick: (event) => {
            event.stopPropagation();
            onpress(mark);
          },
        },
        key,
      ),
    ),
  );
}

/** Put a badge into a cell of a row; the buttons come with the pointer, since most rows never need them. */
export function fillMarkCell(row, cell, now, onpress) {
  replace(cell, markBadge(now));
  if (!exported) row.addEventListener("pointerenter", () => cell.append(quickMarks(now, onpress)), { once: true });
}
