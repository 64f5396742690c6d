// One frame for every chart: uPlot draws axes, grid, crosshair and the brush; what stands inside is drawn here.
"use strict";
(() => {
  // Okabe and Ito (2008): told apart by every kind of colour vision; black and white follow the theme.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7a5c00"];
  const DARK = ["#4aa8e0", "#ff8b3d", "#2cc99a", "#e7a3c8", "#f5b942", "#8fd3f7", "#b79be0", "#c9a63c"];
  const SHAPES = ["circle", "square", "triangle", "diamond", "down", "plus", "cross", "bar"];
  const charts = new Set();
  const NEAR = 14; // pixels within which a point is meant

  Page.printing = () => matchMedia("print").matches; // on paper it is light, and nothing is out of sight
  Page.dark = () => !Page.printing() && (document.documentElement.dataset.theme === "dark" ||
    (document.documentElement.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches));
  // Asked once a drawing and not once a mark: of thousands of marks the browser's answers would cost more than the ink.
  let colours = COLOURS, inks = new Map();
  Page.themed = () => { colours = Page.dark() ? DARK : COLOURS; inks = new Map(); };
  Page.colour = (k) => colours[k % colours.length];
  // Eight of each; the second eight have the colours of the first with other shapes.
  Page.shapeOf = (k) => SHAPES[(k + Math.floor(k / COLOURS.length)) % SHAPES.length];
  Page.ink = (name) => {
    if (!inks.has(name)) inks.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return inks.get(name);
  };

  Page.marker = (ctx, shape, x, y, r, colour, hollow) => {
    ctx.beginPath();
    if (shape === "circle") ctx.arc(x, y, r, 0, 2 * Math.PI);
    else if (shape === "square") ctx.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
    else if (shape === "plus" || shape === "cross" || shape === "bar") {
      const turn = shape === "cross" ? Math.PI / 4 : 0, arms = shape === "bar" ? 2 : 4;
      for (let k = 0; k < arms; k++) {
        const a = turn + (k * 2 * Math.PI) / arms;
        ctx.moveTo(x, y);
        ctx.lineTo(x + 1.3 * r * Math.cos(a), y + 1.3 * r * Math.sin(a));
      }
      ctx.strokeStyle = colour;
      ctx.lineWidth = (hollow ? 1.2 : 2.6) * devicePixelRatio;
      ctx.stroke();
      return;
    } else {
      const corners = { triangle: [3, -Math.PI / 2], down: [3, Math.PI / 2], diamond: [4, 0] }[shape];
      for (let k = 0; k < corners[0]; k++) {
        const a = corners[1] + (k * 2 * Math.PI) / corners[0];
        ctx.lineTo(x + 1.25 * r * Math.cos(a), y + 1.25 * r * Math.sin(a));
      }
      ctx.closePath();
    }
    ctx.fillStyle = hollow ? Page.ink("--ground") : colour;
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.fill();
    ctx.stroke();
  };

  // Ends of an axis round the finite values, with a margin; of a logarithmic one round those above 0.
  Page.ends = (values, log) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (!Number.isFinite(value) || (log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return log ? [0.1, 1] : [0, 1];
    if (log) {
      const wide = Math.max(high / low, 1.2) ** 0.06;
      return [low / wide, high * wide];
    }
    const margin = 0.06 * (high - low || Math.abs(high) || 1);
    return [low - margin, high + margin];
  };

  Page.wantsLog = (values) => {
    const [low, high] = Page.ends(values, true);
    for (const value of values) if (value <= 0) return false;
    return high / low > 25;
  };

  function ticks(low, high, log, room) {
    const out = [];
    if (log) {
      const decades = Math.log10(high / low), every = Math.max(1, Math.ceil(decades / room));
      const at = (steps) => {
        const found = [];
        for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
          if (steps.length === 1 && power % every) continue;
          for (const step of steps) if (step * 10 ** power >= low && step * 10 ** power <= high) found.push(step * 10 ** power);
        }
        return found;
      };
      // The finest that there is room for; where not even two fit between the ends, as on a linear axis.
      const fits = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]].map(at).find((found, k) => k === 3 || found.length <= Math.max(3, room));
      return fits.length > 1 ? fits : ticks(low, high, false, room);
    }
    const rough = (high - low) / Math.max(2, room), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough);
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) out.push(Math.abs(at) < step * 1e-9 ? 0 : at);
    return out;
  }

  // x, y: { title, log, ends, texts (of whole numbers 0, 1, … where the axis is one of names) }.
  // draw(ctx, px, py); points: [{ x, y, i }]; tip(i): text; pick(i, side); brush({ x: [low, high], y }).
  Page.chart = (holder, { label, x, y, height, draw, points = [], tip, pick, brush }) => {
    const tipBox = Page.el("div", { class: "tip", hidden: true });
    const help = points.length ? "Arrow keys move from point to point, Enter opens a cell as A, B as B." : "";
    const frame = Page.el("div", { class: "chart", role: "group", tabindex: points.length ? "0" : null, "aria-label": `${label}. ${help}` }, tipBox);
    holder.append(frame);
    const fontSize = 12, font = `${fontSize}px system-ui, sans-serif`;
    const axis = (side, spec, extra) => ({
      scale: side, label: spec.title, labelFont: font, font, labelSize: 20, gap: 4,
      stroke: Page.ink("--text"), grid: { stroke: Page.ink("--line"), width: 1 }, ticks: { stroke: Page.ink("--line"), width: 1, size: 4 },
      splits: (u) => {
        const size = side === "x" ? u.bbox.width / devicePixelRatio / 70 : u.bbox.height / devicePixelRatio / 36;
        if (spec.texts) return spec.texts.map((_, k) => k);
        const found = ticks(u.scales[side].min, u.scales[side].max, spec.log, size);
        return spec.whole ? found.filter(Number.isInteger) : found;
      },
      filter: (u, splits) => splits,
      values: (u, splits) => splits.map((value) => (spec.texts ? spec.texts[value] ?? "" : Page.general(value, 3))),
      ...extra,
    });
    const widest = y.texts ? Math.min(180, 16 + 7 * Math.max(...y.texts.map((text) => text.length))) : 58;
    const size = () => ({ width: Math.max(220, frame.clientWidth || holder.clientWidth || 600), height });
    const scale = (spec) => ({ time: false, distr: spec.log ? 3 : 1, range: () => spec.ends });
    let chosen = -1, order = points.map((_, k) => k).sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
    const u = new uPlot({
      ...size(), legend: { show: false }, padding: [12, 14, 0, 0],
      scales: { x: scale(x), y: scale(y) },
      axes: [axis("x", x, { size: 30 }), axis("y", y, { size: widest })],
      series: [{}, { paths: () => null, points: { show: false } }],
      cursor: { drag: { x: Boolean(brush), y: Boolean(brush), setScale: false, dist: 6 }, points: { show: false }, x: points.length > 0, y: points.length > 0 },
      hooks: {
        draw: [(u) => {
          const ctx = u.ctx;
          ctx.save();
          ctx.beginPath();
          ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
          ctx.clip();
          draw(ctx, (value) => u.valToPos(value, "x", true), (value) => u.valToPos(value, "y", true), u);
          if (chosen >= 0) mark(ctx, points[chosen]);
          ctx.restore();
        }],
        setSelect: [(u) => {
          const { left, top, width, height: tall } = u.select;
          if (!brush || width < 4 || tall < 4) return;
          brush({ x: [u.posToVal(left, "x"), u.posToVal(left + width, "x")], y: [u.posToVal(top + tall, "y"), u.posToVal(top, "y")] });
        }],
        setCursor: [(u) => near(u.cursor.left, u.cursor.top)],
      },
    }, [x.ends, [null, null]], frame);

    function mark(ctx, point) {
      ctx.beginPath();
      ctx.arc(u.valToPos(point.x, "x", true), u.valToPos(point.y, "y", true), 9 * devicePixelRatio, 0, 2 * Math.PI);
      ctx.strokeStyle = Page.ink("--focus");
      ctx.lineWidth = 2.5 * devicePixelRatio;
      ctx.stroke();
    }

    function near(left, top) {
      if (!points.length || left === undefined || left < 0) return show(-1);
      let found = -1, least = NEAR ** 2;
      for (let k = 0; k < points.length; k++) {
        const dx = u.valToPos(points[k].x, "x") - left, dy = u.valToPos(points[k].y, "y") - top, away = dx * dx + dy * dy;
        if (away < least) [found, least] = [k, away];
      }
      show(found);
    }

    function show(k, aloud = false) {
      if (k === chosen) return;
      chosen = k;
      tipBox.hidden = k < 0;
      if (k >= 0) {
        const point = points[k];
        tipBox.textContent = tip(point.i);
        const left = u.valToPos(point.x, "x") + u.bbox.left / devicePixelRatio, width = frame.clientWidth;
        tipBox.style.left = `${Math.max(0, Math.min(left + 12, width - 250))}px`;
        tipBox.style.top = `${u.valToPos(point.y, "y") + u.bbox.top / devicePixelRatio + 12}px`;
        if (aloud) Page.say(tip(point.i));
      }
      u.redraw(false);
    }

    frame.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step && order.length) {
        const at = chosen < 0 && step < 0 ? 0 : order.indexOf(chosen); // the first step back goes to the last point
        show(order[(at + step + order.length) % order.length], true);
        event.preventDefault();
      } else if (chosen >= 0 && pick && (event.key === "Enter" || event.key.toLowerCase() === "b")) {
        pick(points[chosen].i, event.key === "Enter" ? "a" : "b");
        event.preventDefault();
      } else if (event.key === "Escape") show(-1);
    });
    let from = null;
    u.over.addEventListener("mousedown", (event) => { from = [event.clientX, event.clientY]; });
    u.over.addEventListener("click", (event) => {
      const moved = from && Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 5;
      if (!moved && chosen >= 0 && pick) pick(points[chosen].i, event.shiftKey ? "b" : "a");
    });
    frame.addEventListener("blur", () => show(-1));
    Page.lastChart = u; // the newest, for whoever measures from outside
    const entry = { frame, u, resize: () => frame.isConnected && frame.clientWidth && u.setSize(size()) };
    charts.add(entry);
    return u;
  };

  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const entry of charts) entry.frame.isConnected ? entry.resize() : charts.delete(entry);
    });
  });

  // Gone from the page: uPlot lets its listeners go.
  Page.cleared = (holder) => {
    for (const entry of charts) {
      if (!holder.contains(entry.frame)) continue;
      entry.u.destroy();
      charts.delete(entry);
    }
    holder.replaceChildren();
  };

  // The beginning and the end of a long name: cells are often told apart by their end.
  Page.shortened = (text) => (text.length > 26 ? `${text.slice(0, 8)}…${text.slice(-17)}` : text);

  Page.lineTo = (ctx, points, colour, dash = []) => {
    ctx.beginPath();
    points.forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash(dash.map((part) => part * devicePixelRatio));
    ctx.stroke();
    ctx.setLineDash([]);
  };

  Page.bar = (ctx, x0, y0, x1, y1, colour) => {
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1 * devicePixelRatio;
    ctx.stroke();
  };

  // A legend of marks and texts that can be read without the chart.
  Page.legend = (items) => Page.el("ul", { class: "legend" }, items.map(({ text, shape, colour }) => {
    const canvas = Page.el("canvas", { width: 18 * devicePixelRatio, height: 18 * devicePixelRatio, "aria-hidden": "true" });
    Page.marker(canvas.getContext("2d"), shape ?? "circle", 9 * devicePixelRatio, 9 * devicePixelRatio, 5 * devicePixelRatio, colour, false);
    return Page.el("li", {}, canvas, text);
  }));
})();
