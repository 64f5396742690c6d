// Elements made from plain values: text is always text, whatever a record holds.
"use strict";
(() => {
  // el("p", { class: "note" }, "text", otherElement)
  Page.el = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") element[name] = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };

  Page.fill = (element, ...children) => element.replaceChildren(...children.flat().filter((c) => c !== null && c !== undefined));

  let next = 0;
  // A labelled select: options are [value, text].
  Page.select = (label, options, value, change) => {
    const id = `choice-${next++}`;
    const select = Page.el("select", { id, onchange: () => change(select.value) },
      options.map(([key, text]) => Page.el("option", { value: key, selected: key === value }, text)));
    return Page.el("span", { class: "field" }, Page.el("label", { for: id }, label), select);
  };

  Page.check = (label, checked, change) => {
    const id = `choice-${next++}`;
    const box = Page.el("input", { type: "checkbox", id, checked, onchange: () => change(box.checked) });
    return Page.el("span", { class: "field" }, box, Page.el("label", { for: id }, label));
  };

  Page.button = (text, click, more = {}) => Page.el("button", { type: "button", onclick: click, ...more }, text);

  // Several of a few: a button each, pressed or not.
  Page.toggle = (label, options, value, change) =>
    Page.el("span", { class: "toggle", role: "group", "aria-label": label },
      options.map(([key, text]) => Page.button(text, () => change(key), { "aria-pressed": String(key === value) })));

  const SHORT = 32; // letters of a value that stays on one line: a number with its interval
  Page.table = (caption, headings, rows, more = {}) => {
    const line = (row) => Page.el("tr", {}, row.map((text, k) => (k ? Page.el("td", { class: typeof text === "string" && text.length < SHORT ? "short" : null }, text) : Page.el("th", { scope: "row" }, text))));
    const head = Page.el("thead", {}, Page.el("tr", {}, headings.map((text) => Page.el("th", { scope: "col" }, text))));
    const table = Page.el("table", more, Page.el("caption", { class: "unseen" }, caption), head, Page.el("tbody", {}, rows.map(line)));
    return Page.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  };

  Page.say = (text) => {
    document.getElementById("said").textContent = text;
  };

  Page.copy = async (text, what) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = Page.el("textarea", { "aria-hidden": "true", class: "unseen" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    Page.say(`${what} copied`);
  };
})();
