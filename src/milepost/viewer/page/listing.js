// The list as data: columns of the API to rows in an order, by filters. Pure: no element is made here.
// A state is {text, success, mark, annotated, event, min/max of numbers, model, head, sort}; it lives in the address.

/** Numbers that can be ranged and sorted by. scale: how they are shown. */
export const NUMBERS = ["length", "final", "weight", "disagreement"];
const CHOICES = ["text", "success", "mark", "annotated", "event", "model", "head", "sort"];

/** @returns {object} the state an address says: "text=door&sort=-final" */
export function readState(query) {
  const given = new URLSearchParams(query);
  const state = { sort: "index" };
  for (const key of [...CHOICES, ...NUMBERS.flatMap((name) => [`${name}_min`, `${name}_max`])]) {
    if (given.has(key)) state[key] = given.get(key);
  }
  return state;
}

/** The address of a state; what is not chosen is not in it. */
export function writeState(state) {
  const kept = Object.entries(state).filter(
    ([key, value]) => value !== "" && value !== undefined && !(key === "sort" && value === "index"),
  );
  return new URLSearchParams(kept).toString();
}

/** Is anything left out? */
export const filtered = (state) => Object.entries(state).some(([key, value]) => value && !["sort", "model", "head"].includes(key));

/** One table of plain arrays for the chosen model and head. */
export function tableOf(columns, dataset, state) {
  const model = pick(Object.keys(columns.models || {}), state.model);
  const heads = model ? Object.keys(columns.models[model]) : Object.keys(columns.annotated || {});
  const head = pick(heads, state.head);
  const curve = model && head ? columns.models[model][head] : null;
  return {
    size: columns.index.length,
    model,
    head,
    heads,
    index: columns.index,
    length: columns.length,
    success: columns.success,
    kind: columns.kind || [],
    task: columns.task.map((number) => dataset.tasks[number] ?? ""),
    final: curve?.final || [],
    highest: curve?.highest || [],
    spark: curve?.spark || [],
    events: curve?.events || {},
    weight: columns.weight_kept || [],
    disagreement: columns.disagreement || [],
    annotated: annotatedOf(columns, head),
    mark: columns.mark,
    note: columns.note || {},
  };
}

function pick(names, wanted) {
  return names.includes(wanted) ? wanted : (names[0] ?? null);
}

function annotatedOf(columns, head) {
  const known = columns.annotated || {};
  return known[head] || Object.values(known)[0] || [];
}

const EVERY = ["yes", "no", "unknown"];
const asWord = (value) => EVERY[value === true ? 0 : value === false ? 1 : 2];

/** The places in the table that pass the filters, in the order asked for. */
export function chosen(table, state) {
  const tests = testsOf(table, state);
  const places = [];
  for (let k = 0; k < table.size; k += 1) if (tests.every((test) => test(k))) places.push(k);
  return ordered(places, table, state.sort);
}

function testsOf(table, state) {
  const tests = [];
  const words = (state.text || "").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) tests.push((k) => saysAll(table, k, words));
  if (state.success) tests.push((k) => asWord(table.success[k]) === state.success);
  if (state.mark) tests.push((k) => (table.mark[k] || "none") === state.mark);
  if (state.annotated) tests.push((k) => Boolean(table.annotated[k]) === (state.annotated === "yes"));
  if (state.event) tests.push((k) => eventCount(table, k, state.event) > 0);
  for (const name of NUMBERS) tests.push(...rangeOf(table[name], state[`${name}_min`], state[`${name}_max`]));
  return tests;
}

function saysAll(table, k, words) {
  const said = `${table.index[k]} ${table.task[k]} ${table.kind[k] || ""} ${table.note[table.index[k]] || ""}`.toLowerCase();
  return words.every((word) => said.includes(word));
}

function rangeOf(values, lowest, highest) {
  const tests = [];
  const asked = (text) => text !== undefined && text !== "" && !Number.isNaN(Number(text));
  if (asked(lowest)) tests.push((k) => known(values[k]) && values[k] >= Number(lowest));
  if (asked(highest)) tests.push((k) => known(values[k]) && values[k] <= Number(highest));
  return tests;
}

const known = (value) => value !== null && value !== undefined && value !== "";

/** How often this kind of event ("any": all kinds) is in the episode at place k; null where nobody knows. */
export function eventCount(table, k, kind) {
  if (kind !== "any") return table.events[kind]?.[k] ?? null;
  const counts = Object.values(table.events).map((column) => column[k]);
  return counts.length ? counts.reduce((sum, one) => sum + (one || 0), 0) : null;
}

/** Kinds that have no column of their own. */
export const otherKinds = (table) => Object.keys(table.events).filter((kind) => kind !== "stall" && kind !== "regression");

function valueOf(table, name, k) {
  if (name === "stall" || name === "regression") return eventCount(table, k, name);
  if (name === "other") return otherKinds(table).reduce((sum, kind) => sum + (table.events[kind][k] || 0), 0);
  if (name === "success") return [0, 1, 2][EVERY.indexOf(asWord(table.success[k]))];
  if (name === "mark") return { keep: 0, unsure: 1, drop: 2 }[table.mark[k]] ?? null;
  return table[name]?.[k] ?? null;
}

/** By a column ("final", "-final"); unknown always last, ties in the dataset's order. */
function ordered(places, table, sort) {
  const down = sort.startsWith("-");
  const name = down ? sort.slice(1) : sort;
  const keys = new Map(places.map((k) => [k, valueOf(table, name, k)]));
  return places.sort((a, b) => compare(keys.get(a), keys.get(b), down) || table.index[a] - table.index[b]);
}

function compare(a, b, down) {
  if (!known(a) || !known(b)) return Number(!known(a)) - Number(!known(b));
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return down ? -order : order;
}
