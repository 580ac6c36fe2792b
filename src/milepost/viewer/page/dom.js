// Elements without a framework: `h` makes one, `svg` makes one of SVG, `icon` draws one of a dozen signs.
// Text always enters as a text node and styles through the CSSOM, so nothing from a dataset is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props`: attributes; `on*` functions are listeners; `class`; `style` an object; null, undefined and false are left out.
 * @param {string} tag
 * @param {Object<string, any>} [props]
 * @param {...(Node|string|number|null|false|undefined|Array)} children
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same in SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) set(element, name, value);
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "style") styled(element, value);
  else if (name === "value" || name === "checked" || name === "muted") element[name] = value;
  else element.setAttribute(name, value === true ? "" : value);
}

/** Several style properties at once; names with -- are custom properties. */
export function styled(element, style) {
  for (const [name, value] of Object.entries(style)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.style[name] = value;
  }
  return element;
}

/** Put these children in place of what is there. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let pressed = false;
const capture = { capture: true, passive: true };
addEventListener("pointerdown", () => (pressed = true), capture);
for (const ended of ["pointerup", "pointercancel"]) addEventListener(ended, () => (pressed = false), capture);

/** Resolves when no button is held: what is rebuilt between press and release would swallow a click or end a drag. */
export async function released() {
  do await new Promise((done) => setTimeout(done, pressed ? 20 : 0));
  while (pressed);
}

const PATHS = {
  back: "M10 3 5 8l5 5",
  previous: "M9.5 3.5 5 8l4.5 4.5",
  next: "M6.5 3.5 11 8l-4.5 4.5",
  play: "M4.5 2.8v10.4L13 8z",
  pause: "M4.5 3v10M11.5 3v10",
  undo: "M6 4 3 7l3 3M3 7h6.5a3.5 3.5 0 0 1 0 7H7",
  redo: "M10 4l3 3-3 3M13 7H6.5a3.5 3.5 0 0 0 0 7H9",
  split: "M8 2v12M5 5 2 8l3 3M11 5l3 3-3 3",
  remove: "M4 4l8 8M12 4l-8 8",
  add: "M8 3v10M3 8h10",
  rename: "M3 13h10M4.5 10.5 11 4l1.5 1.5-6.5 6.5H4.5z",
  search: "M11 11l3 3M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10z",
  download: "M8 2v8M4.500 7 8 10.500 11.500 7M3 13.500h10",
  keys: "M2 4.500h12v7H2zM4.500 7h.01M7 7h.01M9.500 7h.01M5 9.500h6",
  warning: "M8 2.500 14.500 13.500h-13zM8 6.500v3.500M8 11.900h.01",
  film: "M2.500 3.500h11v9h-11zM5.500 3.500v9M10.500 3.500v9",
};

/** A 16 px sign, drawn in the colour of the text; hidden from screen readers (the button says its name). */
export function icon(name) {
  const solid = name === "play";
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    svg("path", {
      d: PATHS[name],
      fill: solid ? "currentColor" : "none",
      stroke: solid ? "none" : "currentColor",
      "stroke-width": 1.5,
      "stroke-linecap": "round",
      "stroke-linejoin": "round",
    }),
  );
}

/** A button with a sign, a name for screen readers and its key in the tooltip. */
export function signButton(sign, label, key, onclick, props = {}) {
  const title = key ? `${label}  (${key})` : label;
  return h("button", { type: "button", class: "sign", "aria-label": label, title, onclick, ...props }, icon(sign));
}

/** Say something at the corner of the page for a while. kind: "good" or "bad" (stays longer, is read out at once). */
export function notice(text, kind = "good", seconds = kind === "bad" ? 12 : 4) {
  const box = document.getElementById("notices");
  const note = h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, h("span", {}, text));
  note.append(h("button", { class: "sign", type: "button", "aria-label": "Dismiss", onclick: () => note.remove() }, icon("remove")));
  box.append(note);
  setTimeout(() => note.remove(), seconds * 1000);
}
