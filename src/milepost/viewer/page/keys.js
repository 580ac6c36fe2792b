// The keyboard: which key does what in the view that is open, and the list of them (?). Letters typed into a field are left alone.

import { h, icon } from "milepost/dom";

/** @typedef {{keys: string[], label: string, group: string, run: (event: KeyboardEvent) => void, always?: boolean}} Binding */

/** @type {Binding[]} */
let bindings = [];
const SHOWN = {
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  " ": "Space",
  Delete: "Del",
  Escape: "Esc",
  "Mod+s": "Ctrl S",
  "Mod+z": "Ctrl Z",
};

/** The keys of the view that is open now, in place of those before. @param {Binding[]} list */
export function useKeys(list) {
  bindings = list;
}

/** Bindings of one group from [keys, label, run, always] each. @returns {Binding[]} */
export function group(name, list) {
  return list.map(([keys, label, run, always = false]) => ({ keys, label, run, always, group: name }));
}

function nameOf(event) {
  const mod = event.ctrlKey || event.metaKey ? "Mod+" : "";
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shifted = event.shiftKey && (event.key.length > 1 || letter !== event.key || mod || event.key === " ");
  return `${mod}${shifted ? "Shift+" : ""}${letter}`;
}

const typing = (target) => target instanceof Element && target.closest("input:not([type=checkbox]), textarea, select") !== null;
const pressing = (target, key) =>
  (key === " " || key === "Enter") && target instanceof Element && target.closest("button, a, summary, [role=button]") !== null;

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.isComposing) return;
  const key = nameOf(event);
  if (key === "?" && !typing(event.target)) {
    showKeys();
    return;
  }
  const found = bindings.find((one) => one.keys.includes(key));
  if (!found || (!found.always && (typing(event.target) || pressing(event.target, event.key)))) return;
  if (document.querySelector("dialog[open], :popover-open")) return;
  event.preventDefault();
  found.run(event);
});

function words(key) {
  if (SHOWN[key]) return SHOWN[key];
  return key
    .replace("Mod+", "Ctrl ")
    .replace("Shift+", "Shift ")
    .split(" ")
    .map((part) => SHOWN[part] || (part.length === 1 ? part.toUpperCase() : part))
    .join(" ");
}

/** The list of keys, by group. */
export function showKeys() {
  document.querySelector("dialog.keys")?.remove();
  const groups = [...new Set(bindings.map((one) => one.group))];
  const dialog = h(
    "dialog",
    { class: "keys", "aria-label": "Keys", tabindex: "-1" },
    h(
      "header",
      {},
      h("h2", {}, "Keys"),
      h("button", { type: "button", class: "sign", "aria-label": "Close", onclick: () => dialog.close() }, icon("remove")),
    ),
    h(
      "div",
      { class: "groups" },
      groups.map((group) =>
        h(
          "section",
          {},
          h("h3", {}, group),
          h(
            "dl",
            {},
            bindings
              .filter((one) => one.group === group)
              .map((one) => [
                h(
                  "dt",
                  {},
                  one.keys.slice(0, 2).map((key) => h("kbd", {}, words(key))),
                ),
                h("dd", {}, one.label),
              ]),
          ),
        ),
      ),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.focus();
}
