// Error against denoiser calls, log-log, a line a variant, with the order that it is seen to have.
"use strict";
(() => {
  Page.views.curves = (holder) => {
    const data = Page.data;
    Page.cleared(holder);
    if (!data.curves.length) return void holder.append(Page.el("p", {}, "Needs cells with two or more numbers of steps."));
    const at = Math.min(Number(Page.state.curve) || 0, data.curves.length - 1), curve = data.curves[at], name = curve.measure;
    const options = data.curves.map((one, k) => [String(k), `${Page.heading(data, one.measure)}: ${one.group}`]);
    holder.append(Page.el("div", { class: "controls" }, Page.select("Curve", options, String(at), (value) => Page.set({ curve: value }))));
    const shown = new Set(Page.shownRows()), xs = data.column.get("nfe").numbers, ys = data.column.get(name).numbers, what = data.measure.get(name);
    const scale = what?.scale ?? 1;
    const [low, high] = what?.low ? [data.column.get(what.low).numbers, data.column.get(what.high).numbers] : [null, null];
    const lines = curve.lines.map((line, k) => ({ ...line, k, cells: line.cells.filter((i) => shown.has(i)) })).filter((line) => line.cells.length);
    const all = lines.flatMap((line) => line.cells);
    const logy = Page.wantsLog(all.map((i) => ys[i])) || name.includes("error");
    const points = all.map((i) => ({ x: xs[i], y: ys[i] * scale, i })).filter((p) => !logy || p.y > 0);
    const floors = name === "error_to_exact" ? data.column.get("error_to_exact_floor")?.numbers : null;
    Page.chart(holder, {
      label: `${Page.heading(data, name)} against denoiser calls, ${curve.group}`, height: Math.min(520, Math.max(320, innerHeight * 0.55)), points,
      x: { title: "denoiser calls (NFE)", log: true, ends: Page.ends(points.map((p) => p.x), true) }, y: { title: Page.axisLabel(data, name), log: logy, ends: Page.ends(points.map((p) => p.y), logy) },
      tip: (i) => `${data.nameOf(i)}\n${Page.heading(data, name)}: ${Page.withInterval(data, name, i)}`, pick: (i, side) => { Page.pick(side, i); if (side === "a") Page.open("images"); },
      draw: (ctx, px, py) => {
        for (const line of lines) {
          const colour = Page.colour(line.k), cells = line.cells.filter((i) => !logy || ys[i] > 0);
          Page.lineTo(ctx, cells.map((i) => [px(xs[i]), py(ys[i] * scale)]), colour);
          for (const i of cells) {
            if (low && (!logy || low[i] > 0)) Page.bar(ctx, px(xs[i]), py(low[i] * scale), px(xs[i]), py(high[i] * scale), colour);
            Page.marker(ctx, Page.shapeOf(line.k), px(xs[i]), py(ys[i] * scale), 4 * devicePixelRatio, colour, false);
          }
          const known = floors ? cells.filter((i) => Number.isFinite(floors[i])) : [];
          if (known.length) Page.lineTo(ctx, known.map((i) => [px(xs[i]), py(floors[i])]), Page.ink("--soft"), [6, 3]);
        }
      },
    });
    holder.append(Page.legend(lines.map((line) => ({ text: line.slope === null ? line.label : `${line.label} (slope ${line.slope.toFixed(2)})`, colour: Page.colour(line.k), shape: Page.shapeOf(line.k) }))));
    holder.append(Page.el("p", { class: "note" }, [curve.held && `Held: ${curve.held}.`, curve.left_out && `${curve.left_out}.`, floors ? "Slopes are fitted from 40 to 160 calls, clear of the floor (dashed): what the last step, to a clean state, is off by itself." : ""].filter(Boolean).join(" ")));
    holder.append(Page.table("The points of the curve", ["variant", "NFE", Page.heading(data, name)], lines.flatMap((line) => line.cells.map((i) => [line.label, Page.value(data, "nfe", i), Page.withInterval(data, name, i)]))));
  };
})();
