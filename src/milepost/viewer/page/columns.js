// The columns of the list: what each says of an episode, how wide it is, by which name the address sorts it. Columns without a number
// anywhere (no weights, no models) are left out.

import { h } from "milepost/dom";
import { clock, number, plural, title } from "milepost/format";
import { eventCount, otherKinds } from "milepost/listing";
import { outcome } from "milepost/marks";
import { spark } from "milepost/spark";

const has = (values) => values.some((value) => value !== null && value !== undefined);

/** Columns that have something to show: {name, label, width, cell(place)}; a name is what the address sorts by. */
export function columnsOf(table, dataset) {
  const events = Object.keys(table.events).length > 0;
  const countCell = (value) => h("span", { class: value ? "" : "zero" }, value === null ? "–" : value || "0");
  const other = (k) => otherKinds(table).reduce((sum, kind) => sum + (table.events[kind][k] || 0), 0);
  return [
    {
      name: "index",
      label: "Episode",
      width: "82px",
      words: true,
      cell: (k) => h("a", { href: `#/episode/${table.index[k]}`, tabindex: "-1" }, String(table.index[k])),
    },
    {
      name: "task",
      label: "Task",
      width: "minmax(120px, 2fr)",
      words: true,
      cell: (k) => h("span", { title: table.task[k] }, table.task[k]),
    },
    has(table.kind) && {
      name: "kind",
      label: "Kind",
      width: "minmax(118px, 0.7fr)",
      words: true,
      cell: (k) => table.kind[k] && title(table.kind[k]),
    },
    has(table.success) && { name: "success", label: "Outcome", width: "84px", words: true, cell: (k) => outcome(table.success[k]) },
    {
      name: "length",
      label: "Length",
      width: "74px",
      cell: (k) => h("span", { title: plural(table.length[k], "frame") }, clock(table.length[k] / dataset.fps)),
    },
    table.spark.length > 0 && { name: "highest", label: "Curve", width: "136px", words: true, cell: (k) => spark(table.spark[k]) },
    table.final.length > 0 && { name: "final", label: "Final", width: "66px", cell: (k) => number(table.final[k]) },
    events && { name: "stall", label: "Stalls", width: "62px", cell: (k) => countCell(eventCount(table, k, "stall")) },
    events && {
      name: "regression",
      label: "Falls",
      hint: "Regressions",
      width: "58px",
      cell: (k) => countCell(eventCount(table, k, "regression")),
    },
    events && {
      name: "other",
      label: "Other",
      hint: "Retries, jumps, never finished, idle tails",
      width: "62px",
      cell: (k) => countCell(other(k)),
    },
    has(table.weight) && {
      name: "weight",
      label: "Weight",
      hint: "Mean RA-BC weight of the episode",
      width: "70px",
      cell: (k) => number(table.weight[k]),
    },
    has(table.disagreement) && {
      name: "disagreement",
      label: "Differ",
      hint: "Mean absolute difference of two curves",
      width: "68px",
      cell: (k) => number(table.disagreement[k]),
    },
    { name: "mark", label: "Mark", width: "96px", words: true, mark: true },
  ].filter(Boolean);
}
