// The menu of stage names that rename, split and add open: type to filter, arrows and Enter to choose, a digit for the first nine,
// or a new name. It closes with Escape or a click beside it, and then nothing is chosen.

import { h, replace } from "milepost/dom";
import { stageFill } from "milepost/curves";

/** Open it under an element. palette(name) -> {colour, hatched}; onpick(name). */
export function stageMenu(anchor, { heading, names, palette, chosen, onpick }) {
  document.querySelector(".stagemenu")?.remove();
  const before = document.activeElement;
  const input = h("input", {
    type: "text",
    placeholder: "Filter, or a new stage",
    "aria-label": heading,
    autocomplete: "off",
    spellcheck: "false",
    role: "combobox",
    "aria-expanded": "true",
    "aria-controls": "stagemenu-list",
    maxlength: "120",
  });
  const list = h("div", { id: "stagemenu-list", role: "listbox", "aria-label": "Stages" });
  const menu = h("div", { class: "stagemenu", popover: "auto" }, h("p", {}, heading), input, list);
  const state = { at: Math.max(0, names.indexOf(chosen)), options: [] };

  const close = () => {
    if (!menu.isConnected) return;
    menu.remove(); // at once: a hidden menu would keep the focus, and the next key, until the browser paints
    if (before?.isConnected && before !== document.body) before.focus({ preventScroll: true });
  };
  const pick = (name) => {
    close();
    onpick(name);
  };
  const render = () => {
    const wanted = input.value.trim();
    const found = names.filter((name) => name.toLowerCase().includes(wanted.toLowerCase()));
    state.options = found.map((name) => ({ name, fresh: false }));
    if (wanted && !names.includes(wanted)) state.options.push({ name: wanted, fresh: true });
    state.at = Math.min(state.at, Math.max(0, state.options.length - 1));
    const none = h("p", { class: "empty" }, "No stage yet: type a name.");
    replace(
      list,
      state.options.map((option, k) => optionOf(option, k, state, { palette, pick, digit: !wanted })),
      !state.options.length && none,
    );
  };
  input.addEventListener("input", () => {
    state.at = 0;
    render();
  });
  menu.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") close();
    const digit = !input.value && /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    if (digit >= 0 && digit < names.length) {
      event.preventDefault();
      pick(names[digit]);
    } else if (event.key === "Enter" && state.options[state.at]) {
      event.preventDefault();
      pick(state.options[state.at].name);
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const many = state.options.length || 1;
      state.at = (state.at + (event.key === "ArrowDown" ? 1 : many - 1)) % many;
      render();
    }
  });
  menu.addEventListener("toggle", (event) => {
    if (event.newState === "closed") close();
  });
  document.body.append(menu);
  menu.showPopover();
  render();
  put(menu, anchor);
  input.focus();
}

function optionOf({ name, fresh }, k, state, { palette, pick, digit }) {
  const { colour, hatched } = palette(name);
  return h(
    "div",
    { role: "option", class: "option", "aria-selected": String(k === state.at), onclick: () => pick(name) },
    stageFill(h("i", { class: "swatch" }), colour, hatched),
    h("span", {}, fresh ? `New stage “${name}”` : name),
    digit && k < 9 && h("kbd", {}, String(k + 1)),
  );
}

/** Below the anchor, or above it where there is no room; inside the window. */
function put(menu, anchor) {
  const box = anchor.getBoundingClientRect();
  const own = menu.getBoundingClientRect();
  const below = box.bottom + 6 + own.height <= window.innerHeight;
  menu.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - own.width - 8))}px`;
  menu.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
}
