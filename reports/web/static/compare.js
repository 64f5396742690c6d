// Two cells, or two levels of an axis: what the reports found, with the distribution of the images' differences.
"use strict";
(() => {
  const VERDICTS = ["", "better", "worse", "cannot be told apart", "equal", "not comparable"];

  Page.views.compare = (holder) => {
    const data = Page.data, state = Page.state;
    Page.cleared(holder);
    const kinds = [["cells", "Two cells"], ...(data.levels.length ? [["levels", "Two levels of an axis"]] : [])];
    const mode = state.level !== undefined && data.levels.length ? "levels" : "cells";
    holder.append(Page.el("div", { class: "controls" }, Page.toggle("What to compare", kinds, mode, (key) => Page.set({ level: key === "levels" ? "0" : undefined }))));
    mode === "levels" ? levels(holder, data) : cells(holder, data);
  };

  function cells(holder, data) {
    const rows = Page.shownRows().filter((i) => data.ok[i]), a = Page.cell("a") ?? rows.find((i) => i !== Page.cell("b")) ?? null, b = Page.cell("b") ?? rows.find((i) => i !== a) ?? null;
    holder.append(Page.el("div", { class: "controls" }, Page.chooser("A", "a", a, rows), Page.chooser("B", "b", b, rows), Page.button("Swap", () => Page.set({ a: data.idOf(b), b: data.idOf(a) }))));
    if (a === null || b === null || a === b) return void holder.append(Page.el("p", {}, "Choose two cells."));
    const told = Page.el("div", { "aria-live": "polite" });
    holder.append(told);
    const found = between(data, a, b);
    if (found.rows.length) return result(told, data, a, b, found);
    if (document.body.dataset.live === "yes") {
      told.textContent = "Computing …";
      Page.ask(a, b).then((answer) => { told.replaceChildren(); result(told, data, a, b, answer); }, (error) => { told.textContent = String(error.message ?? error); });
      return;
    }
    told.append(Page.el("p", {}, "This pair is not in this file, or the two share no prompts and noise. The same comparison: "), Page.el("code", {}, `python reports/compare.py ${data.idOf(a).slice(0, 8)} ${data.idOf(b).slice(0, 8)}`));
  }

  // The rows of a pair, turned where it is recorded the other way round: B − A becomes what was asked.
  function between(data, a, b) { return turned(data.pairs, a, b); }

  function turned(pairs, a, b) {
    const rows = [], ratios = [];
    for (let k = 0; k < pairs.a.length; k++) {
      const same = pairs.a[k] === a && pairs.b[k] === b;
      if (!same && !(pairs.a[k] === b && pairs.b[k] === a)) continue;
      const sign = same ? 1 : -1, verdict = VERDICTS[pairs.verdict[k]], counts = Array.from(pairs.counts.slice(k * pairs.bins, (k + 1) * pairs.bins));
      rows.push({
        measure: pairs.measures[pairs.measure[k]], difference: sign * pairs.difference[k], low: same ? pairs.low[k] : -pairs.high[k], high: same ? pairs.high[k] : -pairs.low[k],
        n: pairs.n[k], p: pairs.p[k], effect: sign * pairs.effect[k], paired: pairs.paired[k] === 1,
        verdict: same ? verdict : { better: "worse", worse: "better" }[verdict] ?? verdict,
        counts: same ? counts : counts.reverse(), ends: same ? [pairs.low_bin[k], pairs.high_bin[k]] : [-pairs.high_bin[k], -pairs.low_bin[k]],
      });
    }
    const r = pairs.ratios;
    for (let k = 0; k < r.a.length; k++) {
      const same = r.a[k] === a && r.b[k] === b;
      if (!same && !(r.a[k] === b && r.b[k] === a)) continue;
      const [value, low, high] = same ? [r.difference[k], r.low[k], r.high[k]] : [1 / r.difference[k], 1 / r.high[k], 1 / r.low[k]];
      ratios.push({ measure: pairs.costs[r.cost[k]], value, low, high, paired: r.paired[k] === 1 });
    }
    return { rows, ratios };
  }
  Page.turned = turned;

  function result(holder, data, a, b, { rows, ratios }) {
    const what = (name) => data.measure.get(name);
    const change = (row) => (row.verdict === "equal" ? "0" : Page.difference(row.difference, row.low, row.high, what(row.measure).scale) + (row.paired ? "" : " *"));
    const mark = (verdict) => Page.el("span", { class: `verdict ${verdict.split(" ")[0]}` }, { better: "▲ better", worse: "▼ worse", "cannot be told apart": "≈ cannot be told apart", equal: "= equal" }[verdict] ?? verdict);
    const table = rows.map((row) => [
      Page.button(Page.heading(data, row.measure), () => Page.set({ measure: row.measure }), { class: "linkish" }), Page.value(data, row.measure, a), Page.value(data, row.measure, b), change(row),
      row.n ? String(row.n) : "", Page.p(row.p), Number.isFinite(row.effect) ? Page.general(row.effect, 2).replace("-", "−") : "", mark(row.verdict),
    ]);
    const costs = ratios.map((row) => [Page.heading(data, row.measure), Page.withUnit(data, row.measure, a), Page.withUnit(data, row.measure, b),
      `×${Page.general(row.value, 3)}${Number.isFinite(row.low) ? ` (${Page.general(row.low, 3)} to ${Page.general(row.high, 3)})` : ""}`, "", "", "", row.measure !== "latency_s" ? "" : row.paired ? "same rounds" : "not in the same rounds"]);
    holder.append(Page.table("A and B", ["measure", "A", "B", "B − A", "n", "p", "effect d", "B is"], [...table, ...costs]));
    holder.append(Page.el("p", { class: "note" }, "B − A over the images that both have, from the same prompts and noise, with its 95 % interval; p corrected (Holm) over the measures; effect: Cohen's d of the pairs. Costs: B over A."));
    const row = rows.find((one) => one.measure === Page.state.measure && one.counts.some(Boolean)) ?? rows.find((one) => one.counts.some(Boolean));
    if (row) histogram(holder, data, row);
    holder.append(Page.button("See the images side by side", () => { Page.set({ a: data.idOf(a), b: data.idOf(b) }); Page.open("images"); }));
  }

  function histogram(holder, data, row) {
    const [low, high] = row.ends, many = row.counts.length, scale = data.measure.get(row.measure).scale, wide = (high - low) / many, most = Math.max(...row.counts);
    holder.append(Page.el("h2", {}, `Images' differences in ${Page.heading(data, row.measure)}`));
    Page.chart(holder, {
      label: `Histogram of the differences of ${row.n} images: mean ${Page.difference(row.difference, row.low, row.high, scale)}`, height: 220,
      x: { title: `B − A of an image, ${Page.heading(data, row.measure)}`, ends: [(low - wide) * scale, (high + wide) * scale].sort((p, q) => p - q) }, y: { title: "images", whole: true, ends: [0, most * 1.08] },
      draw: (ctx, px, py) => {
        row.counts.forEach((count, k) => {
          const left = px((low + k * wide) * scale), right = px((low + (k + 1) * wide) * scale);
          ctx.fillStyle = Page.colour(0);
          ctx.globalAlpha = 0.75;
          ctx.fillRect(left + 1, py(count), Math.max(1, right - left - 2), py(0) - py(count));
        });
        ctx.globalAlpha = 1;
        Page.bar(ctx, px(0), py(0), px(0), py(most * 1.08), Page.ink("--text"));
        if (Number.isFinite(row.low)) {
          ctx.fillStyle = Page.colour(1);
          ctx.fillRect(px(row.low * scale), py(most * 1.05), Math.max(2, px(row.high * scale) - px(row.low * scale)), 4 * devicePixelRatio);
        }
      },
    });
    holder.append(Page.el("p", { class: "note" }, "Vertical line: no difference. Bar at the top: the 95 % interval of the mean."));
  }

  function levels(holder, data) {
    const at = Math.min(Number(Page.state.level) || 0, data.levels.length - 1), level = data.levels[at];
    const options = data.levels.map((one, k) => [String(k), `${Page.heading(data, one.axis)}: ${one.a_value} → ${one.b_value}`]);
    const measure = level.measures.includes(Page.state.measure) ? Page.state.measure : level.measures[0];
    holder.append(Page.el("div", { class: "controls" }, Page.select("Levels (A → B)", options, String(at), (value) => Page.set({ level: value })),
      Page.select("Measure", level.measures.map((name) => [name, Page.heading(data, name)]), measure, (value) => Page.set({ measure: value }))));
    holder.append(Page.el("ul", {}, level.said.map((line) => Page.el("li", {}, line))));
    const rows = [];
    for (let k = 0; k < level.pair.length; k++) if (level.measures[level.measure[k]] === measure) rows.push(k);
    const scale = data.measure.get(measure).scale, names = rows.map((k) => level.titles[level.pair[k]] || data.nameOf(level.a[k]));
    const ends = Page.ends(rows.flatMap((k) => [level.low[k] * scale, level.high[k] * scale, level.difference[k] * scale, 0]), false);
    Page.chart(holder, {
      label: `Differences of ${Page.heading(data, measure)}, ${level.b_value} minus ${level.a_value}`, height: Math.max(160, 60 + 26 * rows.length),
      x: { title: `${level.b_value} − ${level.a_value}, ${Page.axisLabel(data, measure)}`, ends }, y: { title: "", ends: [-0.7, rows.length - 0.3], texts: names.map(Page.shortened) },
      points: rows.map((k, place) => ({ x: level.difference[k] * scale, y: place, i: k })), tip: (k) => `${level.titles[level.pair[k]]}\n${Page.difference(level.difference[k], level.low[k], level.high[k], scale)}: ${VERDICTS[level.verdict[k]]}`,
      pick: (k) => { Page.set({ a: data.idOf(level.a[k]), b: data.idOf(level.b[k]) }); Page.open("images"); },
      draw: (ctx, px, py) => {
        Page.bar(ctx, px(0), py(-0.7), px(0), py(rows.length), Page.ink("--text"));
        rows.forEach((k, place) => {
          const colour = Page.colour([3, 2, 1, 0, 0, 0][level.verdict[k]]);
          if (Number.isFinite(level.low[k])) Page.bar(ctx, px(level.low[k] * scale), py(place), px(level.high[k] * scale), py(place), colour);
          Page.marker(ctx, "circle", px(level.difference[k] * scale), py(place), 4.5 * devicePixelRatio, colour, level.verdict[k] === 3);
        });
      },
    });
    holder.append(Page.table("Pairs", ["where both", "A", "B", "B − A", "p", "effect d", "B is"], rows.map((k) => [level.titles[level.pair[k]] || data.nameOf(level.a[k]),
      Page.value(data, measure, level.a[k]), Page.value(data, measure, level.b[k]), Page.difference(level.difference[k], level.low[k], level.high[k], scale), Page.p(level.p[k]), Number.isFinite(level.effect[k]) ? Page.general(level.effect[k], 2).replace("-", "−") : "", VERDICTS[level.verdict[k]]])));
  }
})();
