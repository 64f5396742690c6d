// What a person chose, kept in the URL's fragment; and which cells that leaves.
"use strict";
(() => {
  const PLAIN = ["view", "x", "y", "colour", "shape", "facet", "sort", "by", "budget", "a", "b", "how", "order", "measure",
    "row", "column", "image", "level", "first", "second", "curve", "q"];
  const NAMES = ["x", "y", "colour", "shape", "facet", "sort", "row", "column", "measure"]; // of columns
  const state = { filters: {}, brush: null, columns: null, logx: null, logy: null, descending: false };
  const listeners = [];
  Page.state = state;

  Page.onchange = (listener) => listeners.push(listener);

  Page.set = (changes, quiet = false) => {
    Object.assign(state, changes);
    Page.rows = filtered();
    Page.selected = brushed(Page.rows);
    history.replaceState(null, "", fragment());
    if (!quiet) listeners.forEach((listener) => listener(changes));
  };

  // ---- fragment

  function fragment() {
    const words = new URLSearchParams();
    for (const name of PLAIN) if (state[name] !== undefined && state[name] !== null && state[name] !== "") words.set(name, state[name]);
    for (const name of ["logx", "logy"]) if (state[name] !== null) words.set(name, state[name] ? "1" : "0");
    if (state.descending) words.set("descending", "1");
    if (state.columns) words.set("columns", state.columns.join(","));
    for (const [column, filter] of Object.entries(state.filters)) {
      const value = filter.among ? JSON.stringify(filter.among) : `${filter.least ?? ""}..${filter.most ?? ""}`;
      words.set(`f.${column}`, value);
    }
    if (state.brush) words.set("brush", state.brush.map((side) => `${side.column}:${side.least}..${side.most}`).join(";"));
    return `#${words}`;
  }

  Page.readFragment = () => {
    const words = new URLSearchParams(location.hash.slice(1));
    const found = { filters: {}, brush: null, columns: null, logx: null, logy: null, descending: false };
    for (const name of PLAIN) found[name] = words.get(name) ?? undefined;
    // A link of another sweep, or one that was cut: what this page does not know is left out.
    for (const name of NAMES) if (found[name] && !Page.data.column.has(found[name])) found[name] = undefined;
    for (const name of ["x", "y"]) if (found[name] && !Page.data.column.get(found[name]).numeric) found[name] = undefined;
    for (const name of ["logx", "logy"]) if (words.has(name)) found[name] = words.get(name) === "1";
    found.descending = words.get("descending") === "1";
    if (words.get("columns")) found.columns = words.get("columns").split(",").filter((name) => Page.data.column.has(name));
    for (const [key, text] of words) {
      const column = key.slice(2);
      if (!key.startsWith("f.") || !Page.data.column.has(column)) continue;
      if (text.startsWith("[")) {
        try {
          found.filters[column] = { among: JSON.parse(text).map(String) };
        } catch {
          continue; // a link that was cut
        }
      } else found.filters[column] = range(text);
    }
    if (words.get("brush")) {
      const sides = words.get("brush").split(";").map((side) => {
        const at = side.lastIndexOf(":");
        return { column: side.slice(0, at), ...range(side.slice(at + 1)) };
      });
      if (sides.every((side) => Page.data.column.has(side.column))) found.brush = sides;
    }
    return found;
  };

  function range(text) {
    const [least, most] = text.split("..").map((part) => (part === "" || part === undefined ? null : Number(part)));
    return { least: Number.isNaN(least) ? null : least, most: most === undefined || Number.isNaN(most) ? null : most };
  }

  // ---- cells

  function filtered() {
    const data = Page.data, tests = [];
    for (const [name, filter] of Object.entries(state.filters)) {
      const column = data.column.get(name);
      if (!column) continue;
      if (filter.among) {
        const wanted = new Set(filter.among);
        const { levels, codes } = Page.coded(name), kept = levels.map(([level]) => wanted.has(level));
        tests.push((i) => kept[codes[i]]);
      } else {
        const [least, most] = rounded(column, filter);
        tests.push((i) => column.numbers[i] >= least && column.numbers[i] <= most);
      }
    }
    const words = (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) tests.push((i) => words.every((word) => Page.searchable(data, i).includes(word) || (word.length > 3 && data.idOf(i).startsWith(word))));
    const rows = [];
    for (let i = 0; i < data.rows; i++) if (tests.every((test) => test(i))) rows.push(i);
    return rows;
  }

  // The ends of a range in the column's own precision: 0.1 is met by what was recorded as 0.1.
  function rounded(column, { least, most }) {
    const kept = column.numbers instanceof Float32Array ? Math.fround : (value) => value;
    return [kept(least ?? -Infinity), kept(most ?? Infinity)];
  }

  // The cells inside the brushed rectangle, or null where nothing is brushed.
  function brushed(rows) {
    if (!state.brush) return null;
    const sides = state.brush.map((side) => {
      const column = Page.data.column.get(side.column);
      return [column.numbers, ...rounded(column, side)];
    });
    return new Set(rows.filter((i) => sides.every(([values, least, most]) => values[i] >= least && values[i] <= most)));
  }

  // What every view shows: the brushed cells where there are any, else all that the filters leave.
  Page.shownRows = () => (Page.selected ? Page.rows.filter((i) => Page.selected.has(i)) : Page.rows);

  // The values of an axis with how often each occurs.
  Page.levels = (name) => Page.coded(name).levels;

  Page.pick = (side, i) => {
    const id = i === null ? undefined : Page.data.idOf(i);
    Page.set({ [side]: id });
    Page.say(i === null ? `${side.toUpperCase()} is empty` : `${side.toUpperCase()}: ${Page.data.nameOf(i)}`);
  };

  // A select of the cell that is A or B, among `rows`: of many the first, and how many more there are. A long list is made
  // when somebody turns to it: hundreds of options cost more than all that is in sight.
  const LISTED = 600, AT_ONCE = 40;
  Page.chooser = (label, side, now, rows, none = []) => {
    const data = Page.data, option = (i) => [data.idOf(i), data.nameOf(i)];
    const listed = [...new Set([...(now === null ? [] : [now]), ...rows.slice(0, LISTED)])], few = listed.length <= AT_ONCE;
    const field = Page.select(label, [...none, ...(few ? listed : listed.slice(0, 1)).map(option)], now === null ? "" : data.idOf(now), (id) => Page.set({ [side]: id || undefined }));
    const select = field.querySelector("select");
    const fill = () => {
      for (const type of ASKED) select.removeEventListener(type, fill);
      select.append(...listed.slice(1).map((i) => Page.el("option", { value: option(i)[0] }, option(i)[1])));
      if (rows.length > LISTED) select.append(Page.el("option", { disabled: true }, `… and ${rows.length - LISTED} more: filter to find them`));
    };
    if (!few) for (const type of ASKED) select.addEventListener(type, fill);
    return field;
  };
  const ASKED = ["focus", "pointerdown", "mousedown"];

  Page.cell = (side) => Page.data.byId.get(state[side]) ?? null;
})();
