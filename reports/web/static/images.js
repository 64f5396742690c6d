// A cell's images, beside another's from the same prompts and noise: side by side, wiped, blinking, their difference.
"use strict";
(() => {
  const HOW = [["side", "Side by side"], ["wipe", "Wipe"], ["blink", "Blink"], ["difference", "Difference ×4"]];
  const SHEET = 12, BLINK_MS = 600;
  const FIRST = ["clip_score", "discretisation_error", "exact_distance", "attributes_all", "lpips", "feature_distance", "psnr"];
  const addresses = new Map();
  let blinking = 0, paused = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // The address of a cell's row of tiles.
  Page.picture = (i, kind = "") => {
    const data = Page.data, name = data.idOf(i) + kind, ending = kind ? "webp" : data.images.ending;
    if (!(i in data.images.tiles)) return null;
    if (data.images.way === "served") return `picture/${name}.${ending}`;
    if (document.body.dataset.folder) return `${document.body.dataset.folder}/${name}.${ending}`;
    if (!addresses.has(name)) {
      const held = document.getElementById(`picture-${name}`);
      addresses.set(name, held ? `data:image/webp;base64,${held.textContent}` : null);
    }
    return addresses.get(name);
  };

  // One tile of a row, `side` pixels wide; without `alt` it decorates what has a name already.
  function tile(i, k, side, alt, kind = "") {
    const [width, height] = Page.data.images.sizes[i], many = Page.data.images.tiles[i].length;
    const box = Page.el("span", alt ? { class: "tile", role: "img", "aria-label": alt } : { class: "tile", "aria-hidden": "true" });
    box.style.width = `${side}px`;
    box.style.height = `${(side * height) / width}px`;
    const picture = Page.el("img", { src: Page.picture(i, kind), alt: "", loading: "lazy", draggable: "false" });
    picture.style.width = `${side * many}px`;
    picture.style.height = `${(side * height) / width}px`;
    picture.style.transform = `translateX(${-k * side}px)`;
    box.append(picture);
    return box;
  }

  Page.views.images = (holder) => {
    clearInterval(blinking);
    const data = Page.data, state = Page.state, have = Page.shownRows().filter((i) => i in data.images.tiles);
    const any = Object.keys(data.images.tiles).length;
    if (!any || data.images.way === "none") return void Page.fill(holder, Page.el("p", {}, data.images.way === "none" ? "This file was made without images (--images none)." : "No cell has images."));
    const b = Page.cell("b"), a = Page.cell("a") ?? have.find((i) => i !== b) ?? have[0] ?? null;
    const controls = Page.el("div", { class: "controls" }, Page.chooser("A", "a", a, have), Page.chooser("B", "b", b, have, [["", "none"]]));
    if (a === null || !(a in data.images.tiles)) return void Page.fill(holder, controls, Page.el("p", {}, a === null ? "Choose a cell." : "This cell has no images."), sheet(data, have));
    const both = b !== null && b !== a && b in data.images.tiles;
    const measure = imageColumn(data, state.order);
    controls.append(Page.select("Order", orders(data, both), state.order ?? (both ? "differ" : "made"), (value) => Page.set({ order: value })));
    if (both) controls.append(Page.toggle("How to compare", HOW, state.how ?? "side", (how) => Page.set({ how })));
    if (both && state.how === "blink") controls.append(...blinkers());
    const shown = ordered(data, a, both ? b : null, state.order ?? (both ? "differ" : "made"), measure);
    const list = Page.el("div", { class: both ? "pairs two" : "pairs" }, shown.map((row) => (both ? pair(data, a, b, row, state.how ?? "side") : single(data, a, row))));
    Page.fill(holder, controls, Page.el("p", { class: "note" }, words(data, a, both ? b : null)), list, sheet(data, have));
  };

  function words(data, a, b) {
    const lossy = data.images.lossless ? "" : " Thumbnails are compressed with loss: small differences may be the format's.";
    if (b === null) return `${data.nameOf(a)}. Choose a second cell to see the same prompts and noise side by side.${lossy}`;
    return `A: ${data.nameOf(a)}. B: ${data.nameOf(b)}. The same prompts and noise.${lossy}`;
  }

  function orders(data, both) {
    const columns = data.images.columns.map((column, k) => [`worst:${column.name}`, `worst ${column.name.replaceAll("_", " ")} first`]);
    const differ = both ? [["differ", "most different first"], ...data.images.columns.map((c) => [`differ:${c.name}`, `most different ${c.name.replaceAll("_", " ")} first`])] : [];
    const failed = data.images.columns.some((c) => c.name === "attributes_all") ? [["failed", "prompts it missed first"]] : [];
    return [...differ, ["made", "as made"], ...failed, ...columns];
  }

  function imageColumn(data, order) {
    const name = (order ?? "").split(":")[1];
    const k = data.images.columns.findIndex((column) => column.name === name);
    return k < 0 ? 0 : k;
  }

  const rowsOf = (data, i) => new Map((data.byCell.get(i) ?? []).map((row) => [data.images.index[row], row]));

  // [{ index, ra, rb }] in the order asked for.
  function ordered(data, a, b, order, k) {
    const ofA = rowsOf(data, a), ofB = b === null ? new Map() : rowsOf(data, b);
    const tilesB = b === null ? [] : data.images.tiles[b];
    const shown = data.images.tiles[a].filter((index) => b === null || tilesB.includes(index)).map((index) => ({ index, ra: ofA.get(index), rb: ofB.get(index) }));
    const value = (row, column) => (row === undefined || !data.images.values.length ? NaN : data.images.values[column][row]);
    const column = data.images.columns[k], better = column ? higher(data, column.name) : true;
    const all = data.images.columns.findIndex((c) => c.name === "attributes_all");
    const key = {
      worst: ({ ra }) => (better ? 1 : -1) * value(ra, k),
      differ: ({ ra, rb }) => -Math.abs(value(rb, k) - value(ra, k)),
      failed: ({ ra }) => (all < 0 ? 0 : value(ra, all)),
    }[order.split(":")[0]];
    if (!key) return shown;
    const safe = (row) => { const found = key(row); return Number.isNaN(found) ? Infinity : found; };
    return shown.sort((p, q) => safe(p) - safe(q) || p.index - q.index);
  }

  function higher(data, name) {
    const what = [...data.measures].find((one) => one.images === name);
    return what ? what.higher : !/error|distance|lpips/.test(name);
  }

  function prompt(data, row, index) {
    if (row === undefined) return `image ${index}`;
    const code = data.images.prompt.codes[row];
    return code < 0 ? `image ${index}` : data.images.prompt.levels[code];
  }

  const short = (text) => (text.length > 300 ? `${text.slice(0, 300)}…` : text);
  const side = () => Math.max(96, Math.min(256, (innerWidth - 64) / 2));

  function single(data, a, { index, ra }) {
    const text = prompt(data, ra, index);
    const tiles = [tile(a, data.images.tiles[a].indexOf(index), Math.min(192, side()), `image ${index}: ${short(text)}`)];
    if (data.images.sourced.includes(a)) tiles.unshift(tile(a, data.images.tiles[a].indexOf(index), Math.min(192, side()), "what it began with", "-source"));
    return Page.el("figure", { class: tiles.length > 1 ? "pair" : "pair beside" }, Page.el("div", { class: "stage" }, tiles), told(text, data, [["A", ra]]));
  }

  function pair(data, a, b, { index, ra, rb }, how) {
    const text = prompt(data, ra, index), size = side();
    const ka = data.images.tiles[a].indexOf(index), kb = data.images.tiles[b].indexOf(index);
    const ta = tile(a, ka, size, `A, image ${index}: ${short(text)}`), tb = tile(b, kb, size, `B, image ${index}: ${short(text)}`);
    const stage = Page.el("div", { class: `stage ${how}` }, ta, tb);
    const seen = Page.el("div", {}, stage);
    if (how === "wipe") {
      const input = Page.el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": `Wipe between A and B, image ${index}`, class: "wiper",
        oninput: () => wipe(tb, input) });
      input.style.width = `${size}px`;
      wipe(tb, input);
      stage.addEventListener("pointermove", (event) => {
        if (event.buttons !== 1) return;
        const box = stage.getBoundingClientRect();
        input.value = Math.round((100 * (event.clientX - box.left)) / size);
        wipe(tb, input);
      });
      seen.append(input);
    }
    if (how !== "difference") seen.append(letters(how, size));
    return Page.el("figure", { class: how === "side" ? "pair" : "pair beside" }, seen, told(text, data, [["A", ra], ["B", rb]]));
  }

  function wipe(top, input) {
    top.style.clipPath = `inset(0 0 0 ${input.value}%)`;
    input.setAttribute("aria-valuetext", `${input.value} % A`);
  }

  // Which picture is whose, below the stage: where they are wiped A is on the left, where they blink the one in sight.
  function letters(how, size) {
    const row = Page.el("div", { class: `letters ${how}`, "aria-hidden": "true" }, Page.el("span", {}, "A"), Page.el("span", {}, "B"));
    row.style.width = `${how === "side" ? 2 * size + 6 : size}px`;
    return row;
  }

  // What moves by itself can be stopped, and turned by hand; who asked for less motion finds it stopped.
  function blinkers() {
    const flip = () => document.querySelectorAll(".stage.blink").forEach((stage) => stage.classList.toggle("b"));
    const start = () => { clearInterval(blinking); if (!paused) blinking = setInterval(flip, BLINK_MS); };
    const pause = Page.button("Pause", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      start();
    }, { "aria-pressed": String(paused) });
    start();
    return [pause, Page.button("A ⇄ B", flip, { "aria-label": "Show the other of A and B" })];
  }

  // The prompt and the values of an image: what a reader asks for first, the rest on demand.
  function told(text, data, sides) {
    const first = (column) => FIRST.includes(column.name);
    const rest = data.images.columns.some((column) => !first(column));
    return Page.el("figcaption", {}, Page.el("bdi", {}, short(text)), values(data, sides, first),
      rest ? Page.el("details", {}, Page.el("summary", {}, "More values"), values(data, sides, (column) => !first(column))) : null);
  }

  function values(data, sides, wanted) {
    const rows = data.images.columns.map((column, k) => {
      if (!wanted(column)) return null;
      const found = sides.map(([, row]) => (row === undefined ? NaN : data.images.values[k][row]));
      if (found.every(Number.isNaN)) return null;
      const texts = found.map((value) => (Number.isNaN(value) ? Page.NOTHING : Page.general(value, 3)));
      if (found.length === 2) texts.push(Number.isNaN(found[0] + found[1]) ? "" : (found[1] > found[0] ? "+" : found[1] < found[0] ? "−" : "") + Page.general(Math.abs(found[1] - found[0]), 2));
      return Page.el("tr", {}, Page.el("th", { scope: "row" }, column.name.replaceAll("_", " ")), texts.map((text) => Page.el("td", {}, text)));
    });
    const heads = ["", ...sides.map(([letter]) => letter), ...(sides.length === 2 ? ["B − A"] : [])];
    return Page.el("table", { class: "values" }, Page.el("caption", { class: "unseen" }, "Values of this image"), Page.el("thead", {}, Page.el("tr", {}, heads.map((text) => Page.el("th", { scope: "col" }, text)))), Page.el("tbody", {}, rows.filter(Boolean)));
  }

  // ---- the X/Y sheet: one image of every cell over two axes

  function sheet(data, have) {
    const axes = data.axes.filter((axis) => !axis.column.endsWith("_knobs") && Page.levels(axis.column).length > 1);
    if (!axes.length || !have.length) return null;
    const state = Page.state, names = axes.map((axis) => axis.column);
    const column = names.includes(state.column) ? state.column : names.includes("steps") ? "steps" : names[0];
    const row = names.includes(state.row) ? state.row : names.find((name) => name !== column) ?? column;
    const found = new Set();
    for (const i of have) for (const index of data.images.tiles[i]) found.add(index);
    const indices = [...found].sort((p, q) => p - q);
    const image = indices.includes(Number(state.image)) ? Number(state.image) : indices[0];
    const [x, y] = [column, row].map(Page.coded), first = new Map(); // the first cell of each pair of values
    for (const i of have) {
      const key = x.codes[i] * y.levels.length + y.codes[i];
      if (!first.has(key) && data.images.tiles[i].includes(image)) first.set(key, i);
    }
    const some = ({ codes, levels }) => { const here = new Set(have.map((i) => codes[i])); return levels.map((_, code) => code).filter((code) => here.has(code)); };
    const [across, down] = [some(x), some(y)], left = across.length > SHEET || down.length > SHEET;
    const choices = axes.map((axis) => [axis.column, axis.title]), sample = (data.byCell.get(have[0]) ?? []).find((r) => data.images.index[r] === image);
    const cell = (at, on) => {
      const i = first.get(at * y.levels.length + on);
      if (i === undefined) return Page.el("td", {}, Page.NOTHING);
      const open = Page.button("", () => Page.pick("a", i), { "aria-label": `${data.nameOf(i)}: open as A`, class: "bare" });
      open.append(tile(i, data.images.tiles[i].indexOf(image), 80, ""));
      return Page.el("td", {}, open);
    };
    return Page.el("section", { class: "sheet" }, Page.el("h2", {}, "One image over two axes"),
      Page.el("div", { class: "controls" }, Page.select("Across", choices, column, (value) => Page.set({ column: value })), Page.select("Down", choices, row, (value) => Page.set({ row: value })),
        Page.select("Image", indices.map((index) => [String(index), String(index)]), String(image), (value) => Page.set({ image: value }))),
      Page.el("p", { class: "note" }, Page.el("bdi", {}, short(prompt(data, sample, image)))),
      left ? Page.el("p", { class: "note" }, `The first ${SHEET} values of an axis: filter to see others.`) : null,
      Page.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Images over two axes" }, Page.el("table", {}, Page.el("caption", { class: "unseen" }, "Images over two axes"),
        Page.el("thead", {}, Page.el("tr", {}, Page.el("td", {}), across.slice(0, SHEET).map((at) => Page.el("th", { scope: "col" }, x.levels[at][0])))),
        Page.el("tbody", {}, down.slice(0, SHEET).map((on) => Page.el("tr", {}, Page.el("th", { scope: "row" }, y.levels[on][0]), across.slice(0, SHEET).map((at) => cell(at, on))))))));
  }
})();
