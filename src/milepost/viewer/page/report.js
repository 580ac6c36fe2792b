// The report of an exported file, shown first: headings, words, tables and figures that were put into it, in the page's style.
// Links in it lead to episodes (#/episode/12).

import { h, signButton } from "milepost/dom";
import { showKeys } from "milepost/keys";

const held = document.getElementById("report");

/** Is there one? */
export const hasReport = held !== null;

/** "Report" and "Episodes" as tabs; nothing where there is no report. */
export function tabs(here) {
  if (!hasReport) return null;
  const tab = (href, name) => h("a", { class: "tab", href, "aria-current": name === here ? "page" : null }, name);
  return h("nav", { class: "tabs", "aria-label": "Views" }, tab("#/report", "Report"), tab("#/", "Episodes"));
}

export class ReportView {
  constructor(app) {
    this.title = app.dataset.name;
    this.article = h("article", { class: "report" }, held.content.cloneNode(true));
    this.element = h(
      "main",
      { class: "reading" },
      h("header", { class: "top" }, h("h1", {}, app.dataset.name), tabs("Report"), h("nav", {}), signButton("keys", "Keys", "?", showKeys)),
      this.article,
    );
  }

  keys() {
    return [
      {
        keys: ["Enter"],
        label: "Episodes",
        group: "Report",
        run: () => {
          location.hash = "#/";
        },
      },
    ];
  }

  close() {}
}
