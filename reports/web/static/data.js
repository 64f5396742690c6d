// The block of reports/web/columns.py: deflated JSON that refers to typed arrays.
"use strict";
const Page = {};

(() => {
  const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array };

  async function inflated(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  function fromBase64(text) {
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  // Every reference in the JSON becomes the array itself, every coded text a column of text.
  function resolved(value, buffer, start) {
    if (Array.isArray(value)) return value.map((item) => resolved(item, buffer, start));
    if (value === null || typeof value !== "object") return value;
    if ("at" in value && "type" in value) return new TYPES[value.type](buffer, start + value.at, value.n);
    const out = {};
    for (const [key, item] of Object.entries(value)) out[key] = resolved(item, buffer, start);
    return out;
  }

  Page.unpack = async (bytes) => {
    const buffer = await inflated(bytes);
    const size = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    return resolved(header, buffer, 4 + size);
  };

  Page.embedded = () => Page.unpack(fromBase64(document.getElementById("data").textContent));

  // A column answers get(i): a number, a text, true or false, or null.
  function reader(column) {
    if (column.codes) return (i) => (column.codes[i] < 0 ? null : column.levels[column.codes[i]]);
    if (column.flags) return (i) => (column.flags[i] === 255 ? null : column.flags[i] === 1);
    const exact = column.numbers instanceof Float64Array;
    return (i) => {
      const value = column.numbers[i]; // float32: seven digits are its own, the rest is how it is kept
      return Number.isNaN(value) ? null : exact ? value : Number(value.toPrecision(7));
    };
  }

  // The block of a whole page, with its columns by name.
  Page.withColumns = (data) => {
    data.column = new Map();
    for (const column of data.columns) {
      column.get = reader(column);
      column.numeric = Boolean(column.numbers) && column.kind !== "time";
      data.column.set(column.name, column);
    }
    const label = { ...data.label, name: "label", kind: "text", unit: "", meaning: "sampler with what tells it apart", group: "asked" };
    label.get = reader(label);
    data.column.set("label", label);
    for (const [name, found] of Object.entries(data.best)) {
      const column = { name: `${name}~best`, kind: "float", unit: data.column.get(name).unit, group: "quality", numbers: found.difference, numeric: true, of: name };
      column.meaning = `difference of ${name} to the best cell that it may be compared with`;
      column.get = reader(column);
      data.column.set(column.name, column);
    }
    data.nameOf = reader(data.name);
    data.measure = new Map([...data.measures, ...data.costs].map((what) => [what.column, what]));
    data.idOf = data.column.get("cell_id").get;
    data.byId = new Map(Array.from({ length: data.rows }, (_, i) => [data.idOf(i), i]));
    data.best = new Map(Object.entries(data.best));
    data.ok = Array.from({ length: data.rows }, (_, i) => data.column.get("status").get(i) === "ok");
    data.byCell = new Map(); // cell → rows of its shown images
    data.images.cell.forEach((cell, row) => {
      if (!data.byCell.has(cell)) data.byCell.set(cell, []);
      data.byCell.get(cell).push(row);
    });
    data.text = new Array(data.rows);
    data.coded = new Map();
    return data;
  };

  // A column as text, made when it is first asked for: `levels`, the values in order with how often each occurs; `codes`,
  // of every cell which of them it has.
  Page.coded = (name) => {
    const held = Page.data.coded;
    if (!held.has(name)) held.set(name, coded(Page.data, name));
    return held.get(name);
  };

  function coded(data, name) {
    const column = data.column.get(name), raw = column.numbers ?? column.codes ?? column.flags;
    const texts = new Map(), seen = new Map(), counts = new Map(); // values as they are kept, and the texts of them
    for (let i = 0; i < data.rows; i++) {
      if (!texts.has(raw[i])) texts.set(raw[i], String(column.get(i) ?? Page.NOTHING));
      const text = texts.get(raw[i]);
      counts.set(text, (counts.get(text) ?? 0) + 1);
    }
    const number = (text) => (text === Page.NOTHING ? -Infinity : Number(text));
    const levels = [...counts].sort(column.numbers ? (p, q) => number(p[0]) - number(q[0]) : (p, q) => p[0].localeCompare(q[0]));
    levels.forEach(([text], code) => seen.set(text, code));
    return { levels, codes: Int32Array.from(raw, (value) => seen.get(texts.get(value))) };
  }

  // All that a person may search a cell by, made when it is first asked for. Hashes are left out: a short number is in many.
  Page.searchable = (data, i) => {
    if (data.text[i] === undefined) {
      const read = data.columns.filter((column) => column.levels && column.group === "asked" && !/(_id|_fingerprint)$/.test(column.name));
      const numbers = data.axes.filter((axis) => data.column.get(axis.column).numeric).map((axis) => axis.column);
      const parts = [data.nameOf(i), ...read.map((column) => column.get(i) ?? ""), ...numbers.map((name) => `${name}=${data.column.get(name).get(i)}`)];
      data.text[i] = parts.join("\n").toLowerCase();
    }
    return data.text[i];
  };
})();
