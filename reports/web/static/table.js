// All cells: sort, choose columns, copy. Rows are made as they come into sight.
"use strict";
(() => {
  const ROW = 30, AHEAD = 12; // pixels of a row; rows made beyond either edge

  Page.views.table = (holder) => {
    const data = Page.data, state = Page.state;
    const columns = state.columns?.length ? state.columns : usual(data);
    const rows = sorted(data, Page.shownRows(), state.sort, state.descending);
    const box = Page.el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Table of cells" });
    const heads = columns.map((name) => Page.el("th", { scope: "col", "aria-sort": state.sort === name ? (state.descending ? "descending" : "ascending") : "none", title: data.column.get(name)?.meaning },
      Page.button(Page.heading(data, name) + (Page.unit(data, name) ? ` (${Page.unit(data, name)})` : ""), () => Page.set({ sort: name, descending: state.sort === name && !state.descending }))));
    const body = Page.el("tbody");
    const before = Page.el("tr", { "aria-hidden": "true" }, Page.el("td", { colspan: columns.length + 1 }));
    const after = before.cloneNode(true);
    box.append(Page.el("table", { class: "cells", "aria-rowcount": rows.length + 1 }, Page.el("caption", { class: "unseen" }, "Cells, one a row"),
      Page.el("thead", {}, Page.el("tr", {}, Page.el("th", { scope: "col" }, "A / B"), heads)), body));
    let drawn = 0;
    const draw = () => {
      const on = body.contains(document.activeElement) ? document.activeElement : null, line = on?.closest("tr");
      const held = on && { row: line.getAttribute("aria-rowindex"), at: [...line.querySelectorAll("button")].indexOf(on) };
      const all = Page.printing(), first = all ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW) - AHEAD), many = all ? rows.length : Math.ceil((box.clientHeight || 600) / ROW) + 2 * AHEAD;
      const part = rows.slice(first, first + many);
      before.firstChild.style.height = `${first * ROW}px`;
      after.firstChild.style.height = `${Math.max(0, rows.length - first - part.length) * ROW}px`;
      body.replaceChildren(...(first ? [before] : []), ...part.map((i, k) => row(data, columns, i, first + k)), ...(first + part.length < rows.length ? [after] : []));
      // Who goes through the rows by keys scrolls them: the row is made anew under the focus, which stays on it.
      if (held) body.querySelector(`tr[aria-rowindex="${held.row}"]`)?.querySelectorAll("button")[held.at]?.focus({ preventScroll: true });
    };
    box.addEventListener("scroll", () => {
      const at = Math.floor(box.scrollTop / ROW / AHEAD);
      if (at !== drawn) { drawn = at; draw(); }
    });
    Page.fill(holder, Page.el("div", { class: "controls" },
      Page.button("Copy CSV", () => Page.copy(csv(data, columns, rows), "CSV")),
      Page.button("Copy Markdown", () => Page.copy(markdown(data, columns, rows), "Markdown")),
      Page.button("Copy LaTeX", () => Page.copy(latex(data, columns, rows), "LaTeX"))), chooser(data, columns), box,
    Page.el("p", { class: "note" }, "In brackets: difference to the best cell that it may be compared with, from the same prompts and noise, with its 95 % interval; tied: cannot be told from the best (p ≥ 0.05, Holm)."));
    draw();
  };

  function usual(data) {
    const axes = data.axes.map((axis) => axis.column).filter((name) => !["label", "sampler_knobs", "git_commit", "hostname", "order", "stochastic"].includes(name) && !name.endsWith("fingerprint"));
    const quality = data.measures.filter((what) => !what.detail).map((what) => what.column).slice(0, 4);
    return ["label", ...axes.filter((name) => name !== "sampler"), ...quality, ...data.costs.map((what) => what.column).filter((name) => name !== "flops")];
  }

  function sorted(data, rows, name, descending) {
    const column = data.column.get(name);
    if (!column) return rows;
    const out = rows.slice(), turn = descending ? -1 : 1;
    if (column.numbers) {
      const values = column.numbers; // what is not measured comes last either way
      return out.sort((a, b) => (Number.isNaN(values[a]) ? 1 : 0) - (Number.isNaN(values[b]) ? 1 : 0) || turn * (values[a] - values[b]) || a - b);
    }
    return out.sort((a, b) => turn * String(column.get(a) ?? "").localeCompare(String(column.get(b) ?? "")) || a - b);
  }

  function row(data, columns, i, k) {
    const pressed = (side) => String(Page.cell(side) === i);
    const pick = (side) => Page.button(side.toUpperCase(), () => Page.pick(side, Page.cell(side) === i ? null : i),
      { "aria-pressed": pressed(side), "aria-label": `${side.toUpperCase()}: ${data.nameOf(i)}`, class: "small" });
    return Page.el("tr", { "aria-rowindex": k + 2, class: data.ok[i] ? null : "bad" }, Page.el("td", { class: "pick" }, pick("a"), pick("b")),
      columns.map((name) => Page.el("td", { class: data.column.get(name)?.numbers ? "number" : null }, text(data, name, i))));
  }

  // A value, of a measure with its difference to the best.
  function text(data, name, i) {
    const value = name.endsWith("~best") ? said(data, name.slice(0, -5), i) : Page.value(data, name, i), best = data.best.get(name);
    if (!best || value === Page.NOTHING || best.to[i] < 0) return value.length > 200 ? `${value.slice(0, 200)}…` : value;
    if (best.to[i] === i) return `${value} (best)`;
    return `${value} (${said(data, name, i)}${best.tied[i] ? ", tied" : ""})`;
  }

  // In the words of the other reports.
  function said(data, name, i) {
    const best = data.best.get(name);
    return best.said.codes[i] < 0 ? "" : best.said.levels[best.said.codes[i]];
  }

  function chooser(data, columns) {
    const groups = { asked: "Asked", quality: "Quality", cost: "Cost", where: "Where it ran" };
    const all = [...data.column.values()].filter((column) => !/_(low|high|n)$/.test(column.name));
    return Page.el("details", { class: "chooser" }, Page.el("summary", {}, `Columns (${columns.length})`),
      Object.entries(groups).map(([group, title]) => Page.el("fieldset", {}, Page.el("legend", {}, title),
        all.filter((column) => column.group === group).map((column) => Page.check(Page.heading(data, column.name), columns.includes(column.name),
          (on) => Page.set({ columns: on ? [...columns, column.name] : columns.filter((name) => name !== column.name) }))))));
  }

  // ---- copies: foreign text stays text in each, as in reports/table_files.py

  const plain = (data, name, i) => {
    const column = data.column.get(name), value = column.get(i);
    return value === null ? "" : column.kind === "time" ? new Date(value).toISOString() : String(value);
  };

  function csv(data, columns, rows) {
    const quote = (given) => {
      const clean = given.replace(/[\u0000-\u001f\u007f]+/g, " ");
      const safe = /^[=+\-@|%]/.test(clean) && Number.isNaN(Number(clean)) ? `'${clean}` : clean;
      return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const lines = [["cell_id", ...columns], ...rows.map((i) => [data.idOf(i), ...columns.map((name) => plain(data, name, i))])];
    return lines.map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
  }

  function markdown(data, columns, rows) {
    const safe = (given) => given.replace(/\s+/g, " ").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replace(/[\\`*_{}[\]()#+!|~]/g, "\\$&");
    const lines = [columns.map((name) => safe(Page.heading(data, name))), columns.map(() => "---"), ...rows.map((i) => columns.map((name) => safe(text(data, name, i))))];
    return lines.map((line) => `| ${line.join(" | ")} |`).join("\n") + "\n";
  }

  const LATEX = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", $: "\\$", "&": "\\&", "#": "\\#", "%": "\\%", _: "\\_", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "±": "$\\pm$", "−": "$-$", "×": "$\\times$", "–": "--" };

  function latex(data, columns, rows) {
    const safe = (given) => given.replace(/\s+/g, " ").replace(/[\\{}$&#%_~^<>|±−×–]/g, (letter) => LATEX[letter]);
    const line = (texts) => `${texts.map(safe).join(" & ")} \\\\`;
    return ["% \\usepackage{booktabs}", `\\begin{tabular}{${"l".repeat(columns.length)}}`, "\\toprule", line(columns.map((name) => Page.heading(data, name))), "\\midrule",
      ...rows.map((i) => line(columns.map((name) => text(data, name, i)))), "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }

  Page.copies = { csv, markdown, latex };
})();
