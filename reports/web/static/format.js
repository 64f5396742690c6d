// Numbers as the other reports write them: the form of a measure (harness/verdict/measures.py), three digits elsewhere.
"use strict";
(() => {
  const NOTHING = "–";

  function general(value, digits) {
    if (value === 0) return "0";
    const power = Math.floor(Math.log10(Math.abs(value)));
    if (power < -4 || power >= Math.max(digits, 6)) return value.toExponential(digits - 1).replace("e+", "e");
    return String(Number(value.toPrecision(digits)));
  }

  // Python's "{:.2f}" and "{:.3g}".
  function formed(form, value) {
    const found = /\.(\d+)([fg])/.exec(form);
    return found[2] === "f" ? value.toFixed(Number(found[1])) : general(value, Number(found[1]));
  }

  Page.NOTHING = NOTHING;
  Page.general = general;

  Page.value = (data, name, i) => {
    const column = data.column.get(name);
    const value = column ? column.get(i) : null;
    return Page.shown(data, name, value);
  };

  Page.shown = (data, name, value) => {
    if (value === null || value === undefined) return NOTHING;
    const what = data.measure.get(name), column = data.column.get(name);
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (typeof value === "string") return value;
    if (column && column.kind === "time") return new Date(value).toISOString().slice(0, 16).replace("T", " ") + " UTC";
    if (what) return formed(what.form, value * what.scale);
    if (column && column.kind === "int") return String(value);
    return general(value, 4);
  };

  Page.withUnit = (data, name, i) => {
    const text = Page.value(data, name, i), unit = Page.unit(data, name);
    return text === NOTHING || !unit ? text : `${text} ${unit}`;
  };

  Page.unit = (data, name) => {
    const what = data.measure.get(name), unit = data.column.get(name)?.unit ?? "";
    return (what && what.scale !== 1) || ["relative", "share", name, "images", what?.heading].includes(unit) ? "" : unit;
  };

  // What is shown of a measure is its value times this: shares as per cent, KID in thousandths.
  Page.scale = (data, name) => data.measure.get(name.endsWith("~best") ? name.slice(0, -5) : name)?.scale ?? 1;

  // A value with the half-width of its own interval, or both ends where it is lopsided.
  Page.withInterval = (data, name, i) => {
    const what = data.measure.get(name), text = Page.withUnit(data, name, i);
    if (!what || !what.low || text === NOTHING) return text;
    const low = data.column.get(what.low).get(i), high = data.column.get(what.high).get(i);
    if (low === null || high === null || low === high) return text;
    return `${text} (${formed(what.form, low * what.scale)} to ${formed(what.form, high * what.scale)})`;
  };

  Page.heading = (data, name) => name.endsWith("~best") ? `${Page.heading(data, name.slice(0, -5))}: difference to the best` : data.measure.get(name)?.heading.replace(/ (s|MiB)$/, "") ?? (name === "label" ? "sampler" : name.replaceAll("_", " "));

  Page.axisLabel = (data, name) => {
    const unit = Page.unit(data, name), what = data.measure.get(name);
    const better = what ? (what.higher ? ", higher is better" : ", lower is better") : "";
    return `${Page.heading(data, name)}${unit ? ` (${unit})` : ""}${better}`;
  };

  // Difference with interval: as many decimals as its half-width has two digits.
  Page.difference = (value, low, high, scale) => {
    if (!Number.isFinite(value)) return "";
    const [v, l, h] = [value, low, high].map((x) => x * scale), half = (h - l) / 2;
    const sign = v > 0 ? "+" : v < 0 ? "−" : "";
    if (!Number.isFinite(half)) return sign + general(Math.abs(v), 2);
    if (half === 0) return v === 0 ? "0" : sign + general(Math.abs(v), 3);
    if (Math.max(Math.abs(v), half) < 1e-3) return `${sign}${Math.abs(v).toExponential(1)} ± ${half.toExponential(0)}`;
    let decimals = Math.max(0, 1 - Math.floor(Math.log10(half)));
    decimals = Math.min(decimals, Math.max(0, 3 - Math.floor(Math.log10(Math.max(Math.abs(v), half)))));
    const text = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(decimals);
    if (Math.max(v - l, h - v) > 1.5 * Math.min(v - l, h - v)) return `${text(v)} (${text(l)} to ${text(h)})`;
    return `${text(v)} ± ${half.toFixed(decimals)}`;
  };

  Page.p = (p) => (Number.isNaN(p) ? "" : p < 1e-4 ? p === 0 ? "<1e-38" : p.toExponential(0) : general(p, 2));
})();
