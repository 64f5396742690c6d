// What a sampler did, call by call: weights of states and outputs, fresh noise, and what two plans share.
"use strict";
(() => {
  Page.views.plans = (holder) => {
    const data = Page.data, shown = new Set(Page.shownRows());
    Page.cleared(holder);
    const plans = data.plans.filter((plan) => plan.cells.some((i) => shown.has(i)));
    if (!plans.length) return void holder.append(Page.el("p", {}, "No plan is recorded for these cells."));
    const of = (side, other) => plans.find((plan) => plan.cells.includes(Page.cell(side))) ?? other;
    const one = of("a", plans[0]), two = of("b", null), name = (plan) => data.nameOf(plan.cells[0]);
    const options = plans.map((plan) => [plan.id, `${name(plan)} (${plan.cells.length} cell${plan.cells.length > 1 ? "s" : ""})`]);
    const choose = (side) => (id) => Page.set({ [side]: id ? data.idOf(plans.find((plan) => plan.id === id).cells[0]) : undefined });
    holder.append(Page.el("div", { class: "controls" }, Page.select("Plan A", options, one.id, choose("a")), Page.select("Plan B", [["", "none"], ...options], two?.id ?? "", choose("b"))));
    if (two && two !== one) holder.append(shared(one, two));
    const grid = Page.el("div", { class: "facets two" });
    holder.append(grid);
    for (const plan of two && two !== one ? [one, two] : [one]) draw(grid, data, plan, name(plan));
  };

  function draw(holder, data, plan, title) {
    const box = Page.el("figure", {}, Page.el("figcaption", {}, title));
    holder.append(box);
    curves(box, `Weights of states, ${title}`, "weights of states", plan.states, plan);
    curves(box, `Weights of outputs, ${title}`, "weights of outputs", plan.outputs, plan);
    if (plan.noise.some(Boolean)) curves(box, `Fresh noise, ${title}`, "share of noise that is fresh", [plan.noise], plan);
    if (plan.missed) missed(box, title, plan.missed);
    const most = Math.max(plan.states.length, plan.outputs.length);
    box.append(Page.legend(Array.from({ length: most }, (_, k) => ({ text: k ? `${k} call${k > 1 ? "s" : ""} ago` : "this call", colour: Page.colour(k), shape: Page.shapeOf(k) }))));
    const worst = Math.max(...plan.sums.map((sum) => (sum === null ? 0 : Math.abs(sum - 1))));
    box.append(Page.el("p", { class: "note" }, `${plan.ends.length} denoiser calls in ${plan.ends.filter(Boolean).length} steps; declared order ${plan.order ?? "unknown"}. ` +
      `First condition, weights of every call add up to 1: met to ${worst < 1e-12 ? "rounding" : Page.general(worst, 2)}. Run by ${plan.cells.length} cell${plan.cells.length > 1 ? "s" : ""}.`));
    for (const one of data.diagnoses.filter((one) => one.plan === plan.id)) Page.diagnosis(box, one, title);
    box.append(Page.el("details", {}, Page.el("summary", {}, "Coefficients"), Page.table(`Coefficients of ${title}`, ["call", "σ/α", ...plan.states.map((_, k) => `state −${k}`), ...plan.outputs.map((_, k) => `output −${k}`), "noise", "sum"],
      plan.ends.map((_, call) => [String(call), text(plan.sigma[call]), ...plan.states.map((row) => text(row[call])), ...plan.outputs.map((row) => text(row[call])), text(plan.noise[call]), text(plan.sums[call])]))));
  }

  const text = (value) => (value === null ? "∞" : value === 0 ? "0" : Page.general(value, 5));

  function curves(holder, label, title, rows, plan) {
    const calls = plan.ends.length;
    Page.chart(holder, {
      label, height: 190, x: { title: "denoiser call", whole: true, ends: [-0.6, calls - 0.4] }, y: { title, ends: Page.ends([...rows.flat(), 0], false) },
      draw: (ctx, px, py) => {
        Page.bar(ctx, px(-1), py(0), px(calls), py(0), Page.ink("--soft"));
        rows.forEach((row, k) => {
          const points = row.map((value, call) => [call, value]).filter(([, value]) => value);
          Page.lineTo(ctx, points.map(([call, value]) => [px(call), py(value)]), Page.colour(k));
          for (const [call, value] of points) Page.marker(ctx, Page.shapeOf(k), px(call), py(value), 3.2 * devicePixelRatio, Page.colour(k), !plan.ends[call]);
        });
      },
    });
  }

  // The order conditions, step by step: a line a degree of the solution.
  function missed(holder, title, rows) {
    const steps = rows[0].length, met = 1e-12, value = (one) => Math.max(one, met); // below is rounding
    const known = rows.flat().filter((one) => one !== null);
    if (!known.length) return;
    const label = "missed by a step", middle = rows.map((row) => median(row.slice(Math.floor(steps / 4), Math.ceil((3 * steps) / 4)).filter((one) => one !== null)));
    Page.chart(holder, {
      label: `Order conditions, ${title}`, height: 190, x: { title: "step", whole: true, ends: [-0.6, steps - 0.4] }, y: { title: label, log: true, ends: Page.ends(known.map(value), true) },
      draw: (ctx, px, py) => rows.forEach((row, k) => {
        const points = row.map((one, step) => [step, one]).filter(([, one]) => one !== null).map(([step, one]) => [px(step), py(value(one))]);
        Page.lineTo(ctx, points, Page.colour(k));
        for (const [x, y] of points) Page.marker(ctx, Page.shapeOf(k), x, y, 3.2 * devicePixelRatio, Page.colour(k), false);
      }),
    });
    holder.append(Page.legend(rows.map((_, k) => ({ text: `degree ${k + 1}`, colour: Page.colour(k), shape: Page.shapeOf(k) }))),
      Page.el("p", { class: "note" }, "Order conditions: what a step misses, when all that it reads is exact, of a solution that is a polynomial of that degree in log SNR and of size 1. " +
        `In the middle half: ${middle.map((one, k) => `degree ${k + 1} ${one === null ? "unknown" : one < met ? "to rounding" : Page.general(one, 2)}`).join(", ")}.`));
  }

  function median(values) {
    const sorted = values.slice().sort((p, q) => p - q);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
  }

  // Calls in which both have the same coefficients over the same level.
  function shared(one, two) {
    const calls = Math.min(one.ends.length, two.ends.length), same = [];
    const row = (plan, call) => JSON.stringify([plan.states.map((r) => r[call] || 0), plan.outputs.map((r) => r[call] || 0), plan.noise[call]].map((part) => (Array.isArray(part) ? trimmed(part) : part)));
    for (let call = 0; call < calls; call++) if (one.sigma[call] === two.sigma[call] && row(one, call) === row(two, call)) same.push(call);
    const levels = one.sigma.filter((sigma) => two.sigma.includes(sigma)).length;
    return Page.el("p", {}, `The two plans share ${same.length} of ${Math.max(one.ends.length, two.ends.length)} calls, coefficient by coefficient${same.length ? ` (calls ${runs(same)})` : ""}, and ${levels} of ${Math.max(one.sigma.length, two.sigma.length)} levels.`);
  }

  function trimmed(values) {
    const out = values.slice();
    while (out.length && !out.at(-1)) out.pop();
    return out;
  }

  function runs(values) {
    const out = [];
    for (const value of values) {
      const last = out.at(-1);
      if (last && last[1] === value - 1) last[1] = value;
      else out.push([value, value]);
    }
    return out.map(([p, q]) => (p === q ? p : `${p}–${q}`)).join(", ");
  }
})();
