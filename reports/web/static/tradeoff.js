// Any metric against any cost, with intervals and the front as the reports compute it.
"use strict";
(() => {
  const BARS = 1500; // points up to which intervals are drawn
  const PANELS = 12, KINDS = 24;

  Page.views.tradeoff = (holder) => {
    const data = Page.data, state = Page.state;
    Page.cleared(holder);
    const numeric = [...data.column.values()].filter((column) => column.numeric);
    if (!numeric.length) return void holder.append(Page.el("p", {}, "Nothing measured yet."));
    const offered = options(data, numeric);
    const has = (name) => data.column.get(name)?.numbers?.some((value) => !Number.isNaN(value));
    const x = state.x ?? ["latency_s", "nfe", "steps"].find(has) ?? numeric[0].name;
    const y = state.y ?? (data.measures[0]?.column || numeric[0].name);
    const axes = [["", "none"], ...data.axes.map((axis) => [axis.column, axis.title])];
    const colour = state.colour ?? (data.axes.find((axis) => ["label", "sampler"].includes(axis.column)) ?? data.axes[0])?.column ?? "";
    const shape = state.shape ?? colour, facet = state.facet ?? "";
    const rows = Page.rows.filter((i) => data.ok[i] && finite(data, x, i) && finite(data, y, i));
    const values = (name) => { const { numbers } = data.column.get(name), scale = Page.scale(data, name); return rows.map((i) => numbers[i] * scale); };
    const logx = state.logx ?? Page.wantsLog(values(x)), logy = state.logy ?? Page.wantsLog(values(y));
    holder.append(Page.el("div", { class: "controls" },
      Page.select("Up", offered, y, (value) => Page.set({ y: value, brush: null, logy: null })),
      Page.select("Across", offered, x, (value) => Page.set({ x: value, brush: null, logx: null })),
      Page.check("log up", logy, (value) => Page.set({ logy: value })),
      Page.check("log across", logx, (value) => Page.set({ logx: value })),
      Page.select("Colour", axes, colour, (value) => Page.set({ colour: value })),
      Page.select("Shape", axes, shape, (value) => Page.set({ shape: value })),
      Page.select("Facets", axes, facet, (value) => Page.set({ facet: value }))));
    const colours = kinds(colour), shapes = kinds(shape);
    const panels = facet ? apart(facet, rows) : [["", rows]];
    const reach = (name) => [values(name), ...(rows.length <= BARS ? bounds(data, name).filter(Boolean).map((ends) => rows.map((i) => ends[i] * Page.scale(data, name))) : [])].flat();
    const spec = {
      x: { title: Page.axisLabel(data, x), log: logx, ends: Page.ends(reach(x), logx) },
      y: { title: Page.axisLabel(data, y), log: logy, ends: Page.ends(reach(y), logy) },
    };
    const grid = Page.el("div", { class: facet ? "facets" : "single" });
    holder.append(grid);
    for (const [level, some] of panels.slice(0, PANELS)) {
      const cell = Page.el("figure", {}, level ? Page.el("figcaption", {}, `${Page.heading(data, facet)} ${level}`) : null);
      grid.append(cell);
      panel(cell, data, some, { x, y, spec, colours, shapes, level, small: Boolean(facet) });
    }
    holder.append(legend(data, colours, shapes, colour, shape), Page.el("p", { class: "note" }, told(data, x, y, rows.length)));
    if (panels.length > PANELS) holder.append(Page.el("p", { class: "note" }, `The first ${PANELS} of ${panels.length} facets: filter to see others.`));
    if (state.brush) holder.append(Page.button("Clear the brush", () => Page.set({ brush: null })));
  };

  const finite = (data, name, i) => Number.isFinite(data.column.get(name)?.numbers?.[i]);

  function options(data, numeric) {
    const first = [...data.measures, ...data.costs].map((what) => what.column);
    const later = numeric.map((column) => column.name).filter((name) => !first.includes(name) && !/_(low|high|n)$/.test(name));
    return [...first, ...later].map((name) => [name, Page.heading(data, name)]);
  }

  function kinds(name) {
    if (!name) return { of: () => 0, levels: [] };
    const { levels, codes } = Page.coded(name);
    return { of: (i) => codes[i], levels: levels.map(([level]) => level) };
  }

  // [[level, its cells]] in the order of the axis.
  function apart(name, rows) {
    const { levels, codes } = Page.coded(name), found = levels.map(([level]) => [level, []]);
    for (const i of rows) found[codes[i]][1].push(i);
    return found.filter(([, some]) => some.length);
  }

  function panel(holder, data, rows, { x, y, spec, colours, shapes, level, small }) {
    const xs = data.column.get(x).numbers, ys = data.column.get(y).numbers, sx = Page.scale(data, x), sy = Page.scale(data, y), front = data.fronts[`${y}|${x}`];
    const [yl, yh] = bounds(data, y), [xl, xh] = bounds(data, x), bars = rows.length <= BARS;
    const points = rows.map((i) => ({ x: xs[i] * sx, y: ys[i] * sy, i })).filter((p) => (!spec.x.log || p.x > 0) && (!spec.y.log || p.y > 0));
    Page.chart(holder, {
      label: `${Page.heading(data, y)} against ${Page.heading(data, x)}${level ? `, ${level}` : ""}, ${rows.length} cells`,
      ...spec, height: small ? 240 : Math.min(520, Math.max(320, innerHeight * 0.55)), points,
      tip: (i) => tip(data, i, x, y),
      pick: (i, side) => { Page.pick(side, i); if (side === "a") Page.open("images"); },
      brush: (box) => Page.set({ brush: [{ column: x, least: box.x[0] / sx, most: box.x[1] / sx }, { column: y, least: box.y[0] / sy, most: box.y[1] / sy }] }),
      draw: (ctx, px, py) => {
        const r = (points.length > 1000 ? 2.2 : points.length > 200 ? 3.2 : 4.5) * devicePixelRatio;
        const dim = (i) => Page.selected && !Page.selected.has(i);
        if (bars) for (const p of points) {
          ctx.globalAlpha = dim(p.i) ? 0.1 : 0.55;
          const tint = Page.colour(colours.of(p.i));
          if (yl && Number.isFinite(yl[p.i])) Page.bar(ctx, px(p.x), py(Math.max(yl[p.i] * sy, spec.y.ends[0])), px(p.x), py(Math.min(yh[p.i] * sy, spec.y.ends[1])), tint);
          if (xl && Number.isFinite(xl[p.i])) Page.bar(ctx, px(Math.max(xl[p.i] * sx, spec.x.ends[0])), py(p.y), px(Math.min(xh[p.i] * sx, spec.x.ends[1])), py(p.y), tint);
        }
        ctx.globalAlpha = 1;
        if (front) step(ctx, px, py, points.filter((p) => front.state[p.i] === 1), data, y);
        for (const p of points) {
          ctx.globalAlpha = dim(p.i) ? 0.15 : 1;
          Page.marker(ctx, Page.shapeOf(shapes.of(p.i)), px(p.x), py(p.y), r, Page.colour(colours.of(p.i)), front?.state[p.i] === 2);
          if (front?.state[p.i] === 1) {
            ctx.beginPath();
            ctx.arc(px(p.x), py(p.y), r + 4 * devicePixelRatio, 0, 2 * Math.PI);
            ctx.strokeStyle = Page.ink("--text");
            ctx.lineWidth = 1.4 * devicePixelRatio;
            ctx.stroke();
          }
        }
        ctx.globalAlpha = 1;
      },
    });
  }

  // The front's cells joined by steps, each comparable group by itself.
  function step(ctx, px, py, points, data, y) {
    const group = data.best.get(y)?.group, byGroup = new Map();
    for (const p of points) {
      const key = group ? group[p.i] : 0;
      byGroup.set(key, [...(byGroup.get(key) ?? []), p]);
    }
    if (byGroup.size > 8) return;
    for (const some of byGroup.values()) {
      const sorted = some.sort((a, b) => a.x - b.x), path = [];
      sorted.forEach((p, k) => { if (k) path.push([px(p.x), py(sorted[k - 1].y)]); path.push([px(p.x), py(p.y)]); });
      Page.lineTo(ctx, path, Page.ink("--text"));
    }
  }

  function bounds(data, name) {
    if (name.endsWith("~best")) return [data.best.get(name.slice(0, -5)).low, data.best.get(name.slice(0, -5)).high];
    const what = data.measure.get(name);
    return what?.low ? [data.column.get(what.low).numbers, data.column.get(what.high).numbers] : [null, null];
  }

  function tip(data, i, x, y) {
    const lines = [data.nameOf(i), `${Page.heading(data, y)}: ${Page.withInterval(data, y, i)}`, `${Page.heading(data, x)}: ${Page.withInterval(data, x, i)}`];
    const best = data.best.get(y);
    if (best && best.to[i] >= 0) lines.push(best.to[i] === i ? "best of its group" : `${Page.difference(best.difference[i], best.low[i], best.high[i], data.measure.get(y).scale)} to the best${best.tied[i] ? ", tied" : ""}`);
    return lines.join("\n");
  }

  function legend(data, colours, shapes, colour, shape) {
    const marked = (kind, both) => kind.levels.slice(0, KINDS).map((text, k) => ({ text, colour: both ? Page.colour(k) : Page.ink("--text"), shape: Page.shapeOf(k) }));
    const rest = (kind) => (kind.levels.length > KINDS ? Page.el("p", { class: "note" }, `${kind.levels.length - KINDS} more`) : null);
    const plain = colours.levels.slice(0, KINDS).map((text, k) => ({ text, colour: Page.colour(k) }));
    if (colour === shape) return Page.el("div", {}, Page.legend(marked(colours, true)), rest(colours));
    return Page.el("div", {}, Page.legend(plain), shape ? Page.legend(marked(shapes, false)) : null, rest(colours));
  }

  function told(data, x, y, n) {
    const parts = [`${n} cells.`];
    if (data.fronts[`${y}|${x}`]) parts.push("Ringed and joined: on the front, better than every cell as cheap, beyond chance. Hollow: dearer than a cell of the front and not to be told from it.");
    else if (data.measure.get(y) && data.costs.some((cost) => cost.column === x)) parts.push("The front of these two is not in this file: the sweep is large.");
    parts.push(n > BARS ? `Intervals are drawn up to ${BARS} cells: filter to see them.` : "Bars: 95 % intervals.");
    parts.push("Drag a rectangle to select cells in every view; click a point to see its images, with Shift as B.");
    return parts.join(" ");
  }
})();
