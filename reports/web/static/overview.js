// What was swept, and the three answers in words.
"use strict";
(() => {
  const GROUPS = 2; // comparable groups whose answers stand open

  Page.views = Page.views ?? {};

  Page.views.overview = (holder) => {
    const data = Page.data, count = (status) => data.column.get("status").levels.includes(status) ?
      data.column.get("status").codes.reduce((n, code) => n + (data.column.get("status").levels[code] === status), 0) : 0;
    Page.fill(holder, answers(data), facts(data, count), notes(data));
  };

  // The answers are the reports', of whole groups of cells; filters leave out groups of which nothing is shown.
  function answers(data) {
    const box = Page.el("div", { class: "answers" });
    if (!data.overview.length) return Page.el("p", {}, "No cell has a measured quality yet.");
    const by = data.overview.find((one) => one.measure === Page.state.by) ?? data.overview[0];
    const limits = by.steps.slice(1), group = data.best.get(by.measure).group, size = new Map();
    group.forEach((one) => size.set(one, (size.get(one) ?? 0) + 1));
    const shown = new Set(Page.shownRows().map((i) => group[i])), narrowed = Page.shownRows().length < data.rows;
    const free = by.steps[0].choices.filter((one) => shown.has(group[one.best])).sort((p, q) => size.get(group[q.best]) - size.get(group[p.best]));
    const cards = Page.el("div");
    box.append(Page.el("div", { class: "controls" },
      Page.select("Best by", data.overview.map((one) => [one.measure, Page.heading(data, one.measure)]), by.measure, (value) => Page.set({ by: value })),
      limits.length ? slider(limits, nearest(limits, Page.state.budget), (at) => choices(cards, data, by, limits, free, at)) : null), cards);
    choices(cards, data, by, limits, free, limits.length ? nearest(limits, Page.state.budget) : -1);
    if (!free.length) box.append(Page.el("p", {}, `No cell that is left has a measured ${Page.heading(data, by.measure)}.`));
    else if (narrowed) box.append(Page.el("p", { class: "note" }, "These are the answers of all cells of a group, also of those that the filters leave out: their statistics were computed when this page was made."));
    if (free.length > 1) box.append(Page.el("p", { class: "note" }, `${free.length} groups of cells cannot be compared with one another (other models, tasks, seeds, …): a row each; filter to one.`));
    return box;
  }

  // The cards alone are made anew when the slider moves, so that the hand keeps hold of it.
  function choices(holder, data, by, limits, free, at) {
    const group = data.best.get(by.measure).group;
    const rows = free.map((best) => {
      const within = at >= 0 ? limits[at].choices.find((one) => group[one.best] === group[best.best]) : null;
      return Page.el("div", { class: "cards" },
        card(data, "Best quality", best, best.best, by.measure, tiedWords(best)),
        limits.length ? card(data, `Best within ${Page.general(limits[at].limit, 3)} s`, within, within?.best, by.measure, within ? tiedWords(within) : "") : null,
        card(data, "Cheapest that cannot be told from the best", best, best.cheapest, by.measure, ""));
    });
    Page.fill(holder, rows.slice(0, GROUPS), rows.length > GROUPS ? Page.el("details", {}, Page.el("summary", {}, `${rows.length - GROUPS} smaller groups`), rows.slice(GROUPS)) : null);
  }

  function nearest(limits, budget) {
    const wanted = budget === undefined ? limits[Math.floor(limits.length / 2)].limit : Number(budget);
    let found = 0;
    limits.forEach((step, k) => { if (step.limit <= wanted * (1 + 1e-9)) found = k; });
    return found;
  }

  function slider(limits, at, moved) {
    const told = Page.el("output", { for: "budget" });
    const say = (k) => {
      told.textContent = `≤ ${Page.general(limits[k].limit, 3)} s`;
      input.setAttribute("aria-valuetext", `${Page.general(limits[k].limit, 3)} seconds`);
    };
    const input = Page.el("input", { type: "range", id: "budget", min: 0, max: limits.length - 1, step: 1, value: at, oninput: () => {
      const k = Number(input.value);
      Page.set({ budget: String(limits[k].limit) }, true);
      say(k);
      moved(k);
    } });
    say(at);
    return Page.el("span", { class: "field wide" }, Page.el("label", { for: "budget" }, "Latency budget"), input, told);
  }

  function tiedWords(choice) {
    return choice.tied.length ? `${choice.tied.length} cells cannot be told from it` : "no other cell is tied with it";
  }

  function card(data, heading, choice, i, measure, more) {
    if (!choice) return Page.el("article", { class: "card" }, Page.el("h2", {}, heading), Page.el("p", {}, "No cell of this group is as fast."));
    const cost = data.column.get("latency_s") ? "latency_s" : "nfe";
    const best = data.best.get(measure), difference = best.to[i] >= 0 && best.to[i] !== i ?
      `${Page.difference(best.difference[i], best.low[i], best.high[i], data.measure.get(measure).scale)} to the best` : "";
    return Page.el("article", { class: "card" },
      Page.el("h2", {}, heading),
      Page.el("p", { class: "who" }, Page.button(data.nameOf(i), () => { Page.pick("a", i); Page.open("images"); }, { class: "linkish" })),
      Page.el("p", { class: "figure" }, `${Page.heading(data, measure)} ${Page.withInterval(data, measure, i)}`),
      Page.el("p", {}, `${Page.heading(data, cost)}: ${Page.withInterval(data, cost, i)}`),
      difference ? Page.el("p", {}, difference) : null,
      more ? Page.el("p", { class: "note" }, more) : null,
      Page.el("details", {}, Page.el("summary", {}, "In words"), choice.said.map((line) => Page.el("p", {}, line))));
  }

  function facts(data, count) {
    const { counts, span } = data.provenance, first = (name) => (counts[name] ?? []).map(([value, n]) => (counts[name].length > 1 ? `${value} (${n})` : value)).join(", ");
    const axes = data.axes.filter((axis) => !["label", "status", "order", "stochastic"].includes(axis.column) && !/_knobs$|fingerprint$|^git_|^host|^hardware/.test(axis.column));
    const day = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
    const tied = [...data.best].filter(([name]) => !data.measure.get(name).detail).map(([name, found]) => {
      const n = found.tied.reduce((sum, flag, i) => sum + (flag && found.to[i] !== i ? 1 : 0), 0);
      return `${Page.heading(data, name)} ${n}`;
    }).join(", ");
    const rows = [
      ["Cells", `${data.rows}: ${count("ok")} ok, ${count("failed")} failed, ${count("skipped")} skipped`],
      ["Tied with the best of their group", tied],
      ["Swept", axes.length ? axes.map((axis, k) => [k ? "; " : "", `${axis.title}: `, short(Page.levels(axis.column).map(([value]) => value))]).flat(2) : "one cell"],
      ["Ran", span ? `${day(span[0])} to ${day(span[1])} UTC` : ""],
      ["On", first("hardware")],
      ["Commit", `${(counts.git_commit ?? []).map(([value]) => value.slice(0, 12)).join(", ")}${(counts.git_dirty ?? []).some(([value]) => value === "True") ? " (with changes)" : ""}`],
    ];
    return Page.el("dl", { class: "facts" }, rows.filter(([, text]) => text).flatMap(([name, text]) => [Page.el("dt", {}, name), Page.el("dd", {}, text)]));
  }

  function short(values) {
    const apart = (value) => Page.el("bdi", {}, value.length > 60 ? `${value.slice(0, 59)}…` : value); // its direction stays its own
    if (values.length > 10) return [`${values.length} values from `, apart(values[0]), " to ", apart(values.at(-1))];
    return values.flatMap((value, k) => [k ? ", " : "", apart(value)]);
  }

  function notes(data) {
    return data.notes.length ? Page.el("ul", { class: "note" }, data.notes.map((line) => Page.el("li", {}, line))) : null;
  }
})();
