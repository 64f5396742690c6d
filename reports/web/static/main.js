// The page comes together: tabs, filters, what is picked, and the view that is open.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const MANY = 40; // values of an axis from which on a filter is a search through them
  let open = "overview";

  Page.open = (name) => {
    if (!Page.views[name]) return;
    open = name;
    for (const tab of document.querySelectorAll('[role="tab"]')) {
      const on = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      $(tab.getAttribute("aria-controls")).hidden = !on;
    }
    $(`tab-${name}`).scrollIntoView({ block: "nearest", inline: "nearest" }); // on a telephone the tabs are a row that scrolls
    Page.set({ view: name }, true);
    draw();
  };

  // A view is made anew when something is chosen. What a person had unfolded, scrolled to and focused stays so.
  const ANEW = ["filters", "q", "brush", "sort", "descending"]; // with other cells in another order a table begins at its top
  function draw(changes = {}) {
    const holder = $(`view-${open}`), focus = document.activeElement?.closest("main") ? place(document.activeElement, holder) : null;
    const unfolded = new Set([...holder.querySelectorAll("details[open]")].map(folded(holder)));
    const scrolled = ANEW.some((name) => name in changes) ? [] : [...holder.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    holder.style.minHeight = `${holder.offsetHeight}px`; // half made it is shorter, and the window would scroll up
    Page.themed();
    Page.views[open](holder);
    for (const part of holder.querySelectorAll("details")) if (unfolded.has(folded(holder)(part))) part.open = true;
    holder.querySelectorAll(".scroll").forEach((box, k) => { if (scrolled[k]) [box.scrollLeft, box.scrollTop] = scrolled[k]; });
    holder.style.minHeight = "";
    if (focus) restored(holder, focus);
  }

  const folded = (holder) => (part) => [...holder.querySelectorAll("details")].indexOf(part);
  // Who was on the third select stays there.
  const reachable = (holder) => [...holder.querySelectorAll("button, select, input, summary, [tabindex='0']")];
  const place = (element, holder) => ({ tag: element.tagName, at: reachable(holder).filter((one) => one.tagName === element.tagName).indexOf(element) });
  function restored(holder, { tag, at }) {
    if (at >= 0) reachable(holder).filter((one) => one.tagName === tag)[at]?.focus({ preventScroll: true });
  }

  // ---- filters

  function filters() {
    const data = Page.data, ranges = [...data.measures.filter((what) => !what.detail), ...data.costs].map((what) => what.column);
    Page.fill($("filters"), data.axes.map((axis) => choices(data, axis)), Page.el("fieldset", {}, Page.el("legend", {}, "Ranges"), ranges.map((name) => between(data, name))));
  }

  function changed(column, filter) {
    const filters = { ...Page.state.filters };
    if (filter) filters[column] = filter;
    else delete filters[column];
    Page.set({ filters });
  }

  function choices(data, axis) {
    const levels = Page.levels(axis.column), now = Page.state.filters[axis.column]?.among;
    const boxes = Page.el("div", { class: "levels" });
    const toggle = (level, on) => {
      const all = levels.map(([value]) => value), before = Page.state.filters[axis.column]?.among ?? all;
      const after = on ? [...before, level] : before.filter((value) => value !== level);
      changed(axis.column, after.length === all.length ? null : { among: after });
    };
    const fill = (text) => Page.fill(boxes, levels.filter(([value]) => value.toLowerCase().includes(text)).slice(0, MANY).map(([value, n]) =>
      Page.check(`${value.length > 60 ? `${value.slice(0, 59)}…` : value} (${n})`, !now || now.includes(value), (on) => toggle(value, on))));
    fill("");
    const find = levels.length > 12 ? Page.el("input", { type: "search", "aria-label": `Find ${axis.title}`, placeholder: "find", oninput: () => fill(find.value.toLowerCase()) }) : null;
    return Page.el("fieldset", {}, Page.el("legend", {}, axis.title), Page.el("p", {}, Page.button("all", () => { changed(axis.column, null); filters(); }, { class: "small", "aria-label": `all of ${axis.title}` }),
      Page.button("none", () => { changed(axis.column, { among: [] }); filters(); }, { class: "small", "aria-label": `none of ${axis.title}` })), find, boxes);
  }

  function between(data, name) {
    const now = Page.state.filters[name] ?? {}, unit = Page.unit(data, name), scale = Page.scale(data, name);
    const input = (side, word) => {
      const box = Page.el("input", { type: "number", step: "any", value: now[side] === undefined || now[side] === null ? "" : Number((now[side] * scale).toPrecision(7)), "aria-label": `${Page.heading(data, name)} ${word}`, onchange: () => {
        const filter = { ...(Page.state.filters[name] ?? {}), [side]: box.value === "" ? null : Number(box.value) / scale };
        changed(name, filter.least === null && filter.most === null ? null : filter);
      } });
      return box;
    };
    return Page.el("p", { class: "range" }, Page.el("span", {}, `${Page.heading(data, name)}${unit ? ` (${unit})` : ""}`), input("least", "at least"), "to", input("most", "at most"));
  }

  // ---- the bar

  function bar() {
    const data = Page.data, narrowed = Object.keys(Page.state.filters).length || Page.state.q || Page.selected;
    $("count").textContent = `${Page.rows.length} of ${data.rows} cells${Page.selected ? `, ${Page.selected.size} brushed` : ""}`;
    $("clear").hidden = !narrowed;
    const chips = [["a", "A"], ["b", "B"]].map(([side, letter]) => {
      const i = Page.cell(side);
      return i === null ? null : Page.el("span", { class: "chip" }, `${letter}: `, Page.el("bdi", {}, data.nameOf(i)), Page.button("×", () => Page.pick(side, null), { "aria-label": `Remove ${letter}`, class: "small" }));
    });
    Page.fill($("picked"), chips);
  }

  Page.onchange((changes) => { bar(); draw(changes); });

  function listen() {
    let waiting = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => Page.set({ q: $("search").value }), 60);
    });
    $("more").addEventListener("click", () => {
      const now = $("filters").hidden;
      $("filters").hidden = !now;
      $("more").setAttribute("aria-expanded", String(now));
      if (now) filters();
    });
    $("clear").addEventListener("click", () => {
      $("search").value = "";
      Page.set({ filters: {}, q: "", brush: null });
      if (!$("filters").hidden) filters();
    });
    $("link").addEventListener("click", () => Page.copy(location.href, "Link"));
    $("skip").addEventListener("click", (event) => { event.preventDefault(); $(`view-${open}`).focus(); });
    const tabs = [...document.querySelectorAll('[role="tab"]')];
    tabs.forEach((tab, k) => {
      tab.addEventListener("click", () => Page.open(tab.id.slice(4)));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        const next = tabs[(to + tabs.length) % tabs.length];
        Page.open(next.id.slice(4));
        next.focus();
      });
    });
    $("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = Page.dark() ? "light" : "dark";
      draw();
    });
    for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => draw());
    addEventListener("hashchange", () => { read(); });
  }

  function read() {
    Object.assign(Page.state, Page.readFragment());
    $("search").value = Page.state.q ?? "";
    Page.set({}, true);
    bar();
    Page.open(Page.views[Page.state.view] ? Page.state.view : "overview");
  }

  function show(data) {
    const first = !Page.data;
    Page.data = Page.withColumns(data);
    $("title").textContent = data.title;
    $("subtitle").textContent = `${data.rows} cells, written ${new Date(data.made).toISOString().slice(0, 16).replace("T", " ")} UTC`;
    $("tab-errors").textContent = `Errors (${data.ok.filter((ok) => !ok).length})`;
    if (first) {
      listen();
      read();
    } else {
      Page.set({});
    }
    document.documentElement.dataset.ready = "yes";
    performance.mark("ready"); // for whoever measures
  }

  const live = document.body.dataset.live === "yes";
  const done = live ? Page.live(async (bytes) => show(await Page.unpack(bytes))) : Page.embedded().then(show);
  done.catch((error) => {
    $("main").replaceChildren(Page.el("p", { role: "alert" }, `This page cannot show its data: ${error.message}. It needs a browser of 2023 or later.`));
    console.error(error);
  });
})();
