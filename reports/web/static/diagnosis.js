// Where on the way a plan's error arises, for the model it was diagnosed with (python -m harness.diagnose).
"use strict";
(() => {
  const MOST = 30; // rows of a table of sensitivities, those that the error feels most

  Page.diagnosis = (holder, one, title) => {
    const box = Page.el("section", { "aria-label": `Diagnosis of ${title}` });
    holder.append(box);
    box.append(Page.el("h3", {}, "Where its error arises: ", Page.el("bdi", {}, one.said)), Page.el("p", {}, said(one)));
    steps(box, one, title);
    if (one.curvature) curvature(box, one.curvature, title);
    felt(box, one.coefficients, title, "coefficient", "weight of an answer", ["call", "back", "weight"]);
    felt(box, one.levels, title, "level", "log σ/α of a level", ["level", "ratio"]);
  };

  const percent = (share) => `${share < 0 ? "−" : ""}${Page.general(100 * Math.abs(share), 2)} %`;
  const number = (value) => (value === null || value === undefined ? Page.NOTHING : Page.general(value, 3));
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Page.general(Math.abs(value), 3);
  const way = (step) => `${step.from === null ? "∞" : Page.general(step.from, 3)} → ${step.to === null ? "∞" : Page.general(step.to, 3)}`;
  const calls = ({ calls: [first, stop] }) => (stop === first + 1 ? `${first}` : `${first}–${stop - 1}`);

  function said(one) {
    const worst = one.steps.map((step, k) => [Math.abs(step.share), k]).sort((p, q) => q[0] - p[0]).slice(0, 3).map(([, k]) => k);
    const parts = worst.map((k) => `step ${k + 1} (σ/α ${way(one.steps[k])}) has ${percent(one.steps[k].share)} of it`);
    const start = Math.abs(one.start?.share ?? 0) >= 5e-4 ? ` The start, pure noise where the model's own run has signal already, has ${percent(one.start.share)}.` : "";
    return `The run's relative error is ${number(one.error)}; ${parts.join(", ")}.${start}`;
  }

  // What each step misses by itself, and what becomes of that until the end.
  function steps(box, one, title) {
    const lines = [["local", "missed by the step", 0], ["arrives", "arrives at the end", 1], ["euler", "Euler's method would miss", 2]]
      .map(([name, text, k]) => ({ text, k, points: one.steps.map((step, at) => [at + 1, step[name]]).filter(([, value]) => value > 0) })).filter((line) => line.points.length);
    Page.chart(box, {
      label: `Error of each step, ${title}`, height: 220, x: { title: "step", whole: true, ends: [0.4, one.steps.length + 0.6] },
      y: { title: "relative error", log: true, ends: Page.ends(lines.flatMap((line) => line.points.map(([, value]) => value)), true) },
      draw: (ctx, px, py) => lines.forEach(({ k, points }) => {
        Page.lineTo(ctx, points.map(([at, value]) => [px(at), py(value)]), Page.colour(k), k === 2 ? [6, 3] : []);
        for (const [at, value] of points) Page.marker(ctx, Page.shapeOf(k), px(at), py(value), 3.6 * devicePixelRatio, Page.colour(k), false);
      }),
    });
    box.append(Page.legend(lines.map(({ text, k }) => ({ text, colour: Page.colour(k), shape: Page.shapeOf(k) }))),
      Page.el("details", {}, Page.el("summary", {}, "Step by step"), Page.table(`Steps of ${title}`, ["step", "calls", "σ/α", "missed", "Euler's", "arrives", "share", "amplifies"],
        one.steps.map((step, k) => [String(k + 1), calls(step), way(step), number(step.local), number(step.euler), number(step.arrives), percent(step.share), number(step.amplifies)]))),
      Page.el("p", { class: "note" }, "Missed: how far a step ends from the model's own run when all that it reads is exact. Arrives: what is left of that at the end of the run; the shares, of the square of the final error, add up to 1 and may be below 0 where errors cancel. Amplifies: the sum of the weights' sizes of all answers so far."));
  }

  function curvature(box, { ratios, dD, d2D }, title) {
    const lines = [[dD, "|dD/dλ|"], [d2D, "|d²D/dλ²|"]].map(([values, text], k) => ({ text, k, points: ratios.map((ratio, at) => [ratio, values[at]]).filter(([, value]) => value > 0) }));
    Page.chart(box, {
      label: `Curvature along the way, ${title}`, height: 190, x: { title: "σ/α (a run goes from right to left)", log: true, ends: Page.ends(ratios, true) },
      y: { title: "relative", log: true, ends: Page.ends(lines.flatMap((line) => line.points.map(([, value]) => value)), true) },
      draw: (ctx, px, py) => lines.forEach(({ k, points }) => Page.lineTo(ctx, points.map(([ratio, value]) => [px(ratio), py(value)]), Page.colour(k), k ? [6, 3] : [])),
    });
    box.append(Page.legend(lines.map(({ text, k }) => ({ text, colour: Page.colour(k), shape: "bar" }))),
      Page.el("p", { class: "note" }, "How fast the denoiser's answer D turns along the model's own run, over λ = log α/σ: where it bends, steps are worth their calls."));
  }

  // How the error moves with each weight, or level: its sign says which way is better.
  function felt(box, rows, title, what, unit, columns) {
    if (!rows?.length) return;
    const at = (row) => row.call ?? row.level, most = Math.max(...rows.map(at)), kind = (row) => (row.back ?? 1) - 1;
    Page.chart(box, {
      label: `What the error feels of each ${what}, ${title}`, height: 190, x: { title: what === "level" ? "level" : "denoiser call", whole: true, ends: [-0.6, most + 0.6] },
      y: { title: "change of log error a unit", ends: Page.ends([...rows.map((row) => row.log_error), 0], false) },
      draw: (ctx, px, py) => {
        Page.bar(ctx, px(-1), py(0), px(most + 1), py(0), Page.ink("--soft"));
        for (const row of rows) {
          Page.bar(ctx, px(at(row)), py(0), px(at(row)), py(row.log_error), Page.colour(kind(row)));
          Page.marker(ctx, Page.shapeOf(kind(row)), px(at(row)), py(row.log_error), 3.6 * devicePixelRatio, Page.colour(kind(row)), false);
        }
      },
    });
    const kinds = [...new Set(rows.map(kind))].sort((p, q) => p - q);
    if (what === "coefficient") box.append(Page.legend(kinds.map((k) => ({ text: `answer of ${k + 1} call${k ? "s" : ""} ago`, colour: Page.colour(k), shape: Page.shapeOf(k) }))));
    const sorted = rows.slice().sort((p, q) => Math.abs(q.log_error) - Math.abs(p.log_error));
    box.append(Page.el("details", {}, Page.el("summary", {}, `Sensitivity to each ${what}`), Page.table(`Sensitivity of ${title} to each ${what}`, [...columns.map((name) => ({ back: "calls ago", ratio: "σ/α" })[name] ?? name), "moves the result", "changes log error"],
      sorted.slice(0, MOST).map((row) => [...columns.map((name) => number(row[name])), number(row.moves), signed(row.log_error)]))),
    Page.el("p", { class: "note" }, `A unit of the ${unit}${what === "coefficient" ? ", at the expense of the newest answer's," : ", with the coefficients made anew,"} changes the log of the error by so much: below 0 more of it is better.${rows.length > MOST ? ` The table has the ${MOST} that are felt most.` : ""}`));
  }
})();
