// Where the cells come from and how each is made again; and what went wrong in those that failed.
"use strict";
(() => {
  const TEXTS = 200; // failed cells that are listed

  Page.views.provenance = (holder) => {
    const data = Page.data, told = data.provenance, a = Page.cell("a") ?? Page.shownRows()[0] ?? null;
    Page.fill(holder, Page.el("h2", {}, "All cells"), Page.table("All cells", ["what", "value (cells)"], Object.entries(told.counts).map(([name, values]) => [name.replaceAll("_", " "), values.map(([value, n]) => `${value} (${n})`).join(", ")])),
      Page.el("h2", {}, "One cell"), a === null ? null : Page.el("div", { class: "controls" }, Page.chooser("Cell", "a", a, Page.shownRows())), a === null ? null : one(data, a));
  };

  function one(data, i) {
    const command = told(data.provenance.commands[i]), again = told(data.provenance.again.replace("{}", data.idOf(i)));
    const columns = data.columns.filter((column) => ["where", "asked"].includes(column.group) && column.get(i) !== null && !["error"].includes(column.name));
    return Page.el("div", {}, Page.el("p", {}, "This cell again, bit for bit on the same platform:"), again, command ? Page.el("p", {}, "Its own words, for a sweep:") : null, command,
      Page.table("What is recorded of the cell", ["column", "value", "meaning"], columns.map((column) => [column.name, Page.withUnit(data, column.name, i), column.meaning])));
  }

  function told(text) {
    return text ? Page.el("p", { class: "command" }, Page.el("code", {}, text), Page.button("Copy", () => Page.copy(text, "Command"), { class: "small" })) : null;
  }

  Page.views.errors = (holder) => {
    const data = Page.data, bad = Page.rows.filter((i) => !data.ok[i]), error = data.column.get("error");
    Page.fill(holder, bad.length ? Page.el("p", {}, `${bad.length} of ${Page.rows.length} cells did not end well.`) : Page.el("p", {}, "Every cell ended well."),
      ...bad.slice(0, TEXTS).map((i) => Page.el("article", { class: "error" }, Page.el("h2", {}, Page.el("bdi", {}, data.nameOf(i))),
        Page.el("p", {}, `${data.column.get("status").get(i)} · ${data.idOf(i)}`), Page.el("pre", { dir: "auto", tabindex: "0" }, error?.get(i) ?? "no reason is recorded"), told(data.provenance.again.replace("{}", data.idOf(i))))),
      bad.length > TEXTS ? Page.el("p", {}, `… and ${bad.length - TEXTS} more: filter to see them.`) : null);
  };
})();
