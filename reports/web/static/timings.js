// Raw timed runs, the parts of the whole, and the percentiles.
"use strict";
(() => {
  const MOST = 30, PARTS = [["text_s", "text"], ["denoise_s", "denoise"], ["decode_s", "decode"], ["other_s", "other"]];

  Page.views.timings = (holder) => {
    const data = Page.data, t = data.timings;
    Page.cleared(holder);
    const picked = [Page.cell("a"), Page.cell("b")].filter((i) => i !== null), timed = new Set(t.cell);
    const every = [...new Set([...picked, ...Page.shownRows()])].filter((i) => timed.has(i)), rows = every.slice(0, MOST);
    if (!rows.length) return void holder.append(Page.el("p", {}, "No timed runs of these cells (timing=off)."));
    const place = new Map(rows.map((i, k) => [i, rows.length - 1 - k])), names = rows.map((i) => data.nameOf(i)).reverse();
    const runs = [];
    for (let k = 0; k < t.cell.length; k++) if (place.has(t.cell[k]) && t.total_s[k] > 0) runs.push(k);
    const values = runs.map((k) => t.total_s[k]), log = Page.wantsLog(values);
    Page.chart(holder, {
      label: `Timed runs of ${rows.length} cells`, height: 70 + 26 * rows.length, x: { title: "seconds a run", log, ends: Page.ends(values, log) }, y: { title: "", ends: [-0.7, rows.length - 0.3], texts: names.map(Page.shortened) },
      points: runs.map((k) => ({ x: t.total_s[k], y: place.get(t.cell[k]), i: k })), tip: (k) => `${data.nameOf(t.cell[k])}\nrun ${t.run[k]}${t.warmup[k] ? " (warm-up)" : ""}: ${Page.general(t.total_s[k], 4)} s`,
      pick: (k, side) => Page.pick(side, t.cell[k]),
      draw: (ctx, px, py) => {
        for (const k of runs) Page.marker(ctx, t.warmup[k] ? "cross" : "circle", px(t.total_s[k]), py(place.get(t.cell[k])), 3 * devicePixelRatio, Page.colour(t.warmup[k] ? 1 : 0), true);
        for (const i of rows) {
          const median = data.column.get("latency_s")?.numbers[i];
          if (median > 0) Page.bar(ctx, px(median), py(place.get(i) - 0.35), px(median), py(place.get(i) + 0.35), Page.ink("--text"));
        }
      },
    });
    holder.append(Page.el("p", { class: "note" }, "Circles: timed runs; crosses: warm-up; line: the median. A and B stand first where they are chosen." + (every.length > MOST ? ` The first ${MOST} of ${every.length} cells: filter to see others.` : "")));
    const columns = ["latency_s", "latency_p90_s", "latency_p95_s", "latency_p99_s", "first_call_s", "load_s", "step_s"].filter((name) => data.column.get(name));
    const parts = PARTS.filter(([name]) => data.column.get(name));
    const most = Math.max(...rows.map((i) => parts.reduce((sum, [name]) => sum + (data.column.get(name).get(i) ?? 0), 0)));
    holder.append(Page.legend(parts.map(([, label], k) => ({ text: label, colour: Page.colour(k), shape: "square" }))));
    holder.append(Page.table("Timings", ["cell", "parts", ...parts.map(([, label]) => `${label} (s)`), ...columns.map((name) => `${{ latency_s: "p50", latency_p90_s: "p90", latency_p95_s: "p95", latency_p99_s: "p99" }[name] ?? Page.heading(data, name).replace(" s", "")} (s)`)],
      rows.map((i) => [data.nameOf(i), stacked(data, parts, i, most), ...parts.map(([name]) => Page.value(data, name, i)), ...columns.map((name) => (name === "latency_s" ? Page.withInterval(data, name, i) : Page.value(data, name, i)))])));
  };

  function stacked(data, parts, i, most) {
    const canvas = Page.el("canvas", { width: 120 * devicePixelRatio, height: 12 * devicePixelRatio, role: "img", class: "stack", "aria-label": parts.map(([name, label]) => `${label} ${Page.value(data, name, i)} s`).join(", ") }), ctx = canvas.getContext("2d");
    let at = 0;
    parts.forEach(([name], k) => {
      const wide = (120 * devicePixelRatio * (data.column.get(name).get(i) ?? 0)) / most;
      ctx.fillStyle = Page.colour(k);
      ctx.fillRect(at, 0, wide, canvas.height);
      at += wide;
    });
    return canvas;
  }
})();
