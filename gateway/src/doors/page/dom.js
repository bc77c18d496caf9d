// Making elements. Everything that came over the network goes in as text, never as markup.

import { pieces } from "./words.js";

// An element with attributes and children; strings become text.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// Changes a text only where it differs: what did not change is not read out again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A name that somebody else chose, apart from the text around it.
export function named(name) {
  const shown = make("bdi", { class: "name" });
  for (const { mark, text } of pieces(name)) {
    shown.append(mark ? make("span", { class: "mark" }, text) : text);
  }
  return shown;
}

// A table that stays one for screen readers where the style sheet shows rows as cards.
export function table(caption, columns, rows) {
  const heads = columns.map((column) => make("th", { scope: "col", role: "columnheader" }, column));
  const body = rows.map(({ level, cells }) => {
    const made = cells.map((cell, at) => {
      const tag = at === 0 ? "th" : "td";
      const role = at === 0 ? "rowheader" : "cell";
      const attributes = { role, scope: at === 0 ? "row" : null, "data-label": columns[at] };
      return make(tag, attributes, make("span", { class: "value" }, cell));
    });
    return make("tr", { role: "row", "data-level": level ?? null }, ...made);
  });
  return make("table", { role: "table" },
    make("caption", { class: "unseen" }, caption),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)),
    make("tbody", { role: "rowgroup" }, ...body));
}

// A line with its state as a sign, a colour and a word.
export function line(level, text) {
  return make("p", { class: "line", "data-level": level }, text);
}

// How far something is (`progressbar`) or how full (`meter`), for eyes and for screen readers.
export function bar(label, part, whole, text, role = "progressbar") {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  const fill = make("span", { class: "fill" });
  fill.style.width = `${(share * 100).toFixed(2)}%`;
  return make("div", {
    class: "bar", role, "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-valuenow": String(Math.round(share * 100)), "aria-valuetext": text,
  }, fill);
}
