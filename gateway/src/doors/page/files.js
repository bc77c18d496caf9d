// What lies in the store, one directory and one page at a time. The directory stands after `#` in
// the address, so that going back works.

import { byId, make, named, say, table } from "./dom.js";
import { bytes, encodePath, moment } from "./words.js";

const LIMIT = 100;

let directory = "";
// Of the page that is shown, and of the one after it; null where there is none.
let cursor = null;
let next = null;
// The last change of the catalog that the list shows, and the list as text.
let sequence = null;
let shown = null;
let asked = 0;

export function start() {
  addEventListener("hashchange", open);
  byId("skip").addEventListener("click", skip);
  byId("first").addEventListener("click", () => go(null));
  byId("next").addEventListener("click", () => go(next));
  open();
}

// The directory that is shown: empty, or it ends in `/`.
export function here() {
  return directory;
}

// The store has changed: what is shown is read again.
export function changed(status) {
  const now = status.journal?.sequence ?? NaN;
  if (now === sequence) return;
  sequence = now;
  list();
}

export function again() {
  return list();
}

function skip(event) {
  // The place after `#` is the directory's.
  event.preventDefault();
  byId("files-heading").focus();
}

function open() {
  let wanted = "";
  try {
    wanted = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  } catch {
    // An address that somebody cut short: the whole store is shown.
  }
  directory = wanted === "" || wanted.endsWith("/") ? wanted : `${wanted}/`;
  place();
  go(null);
}

function go(to) {
  cursor = to;
  shown = null;
  list();
}

function hash(path) {
  return `#/${encodePath(path)}`;
}

// The way to the directory, each step a link.
function place() {
  const steps = directory.split("/").slice(0, -1);
  const items = [step("all files", "", steps.length === 0)];
  steps.forEach((name, at) => {
    items.push(step(name, `${steps.slice(0, at + 1).join("/")}/`, at + 1 === steps.length));
  });
  byId("place").replaceChildren(make("ol", {}, ...items));
}

function step(name, path, last) {
  const link = make("a", { href: hash(path), "aria-current": last ? "page" : null }, named(name));
  return make("li", {}, link);
}

async function list() {
  asked += 1;
  const mine = asked;
  let answer;
  try {
    answer = await read();
  } catch {
    answer = { miss: "The list does not come." };
  }
  // A later question has taken this one's place.
  if (mine !== asked) return;
  if (answer.miss) {
    note(shown === null ? answer.miss : `${answer.miss} What stands here may be old.`);
    if (shown === null) byId("listing").replaceChildren();
    return;
  }
  fill(answer.page);
}

async function read() {
  const query = new URLSearchParams({ prefix: directory, delimiter: "/", limit: String(LIMIT) });
  if (cursor !== null) query.set("cursor", cursor);
  const signal = AbortSignal.timeout(15_000);
  const response = await fetch(`files?list&${query}`, { signal, cache: "no-store" });
  if (response.ok) return { page: await response.json() };
  const problem = await response.json().catch(() => ({}));
  return { miss: `The list does not come: ${problem.detail ?? `this door answers ${response.status}`}.` };
}

function fill({ entries, cursor: after }) {
  next = after ?? null;
  byId("pager").hidden = cursor === null && next === null;
  byId("first").disabled = cursor === null;
  byId("next").disabled = next === null;
  const text = JSON.stringify(entries);
  if (text === shown) return;
  shown = text;
  if (entries.length === 0) {
    byId("listing").replaceChildren(...(directory === "" && cursor === null ? first() : []));
    note(directory === "" ? "" : "Nothing lies here.");
    return;
  }
  const more = next === null ? "" : ", and there are more";
  note(`${entries.length} here${more}`);
  keepFocus(() => {
    const rows = entries.map((entry) => ({ cells: row(entry) }));
    byId("listing").replaceChildren(table("Files and directories", ["Name", "Size", "Stored", "Get"], rows));
  });
}

// An empty store says how to store the first file.
function first() {
  const url = new URL("upload", location.href.replace(/#.*/, ""));
  return [
    make("p", { id: "empty" }, "Nothing is stored yet. Choose a file below, or store a first one from a shell:"),
    make("pre", { tabindex: "0", "aria-label": "Command that stores a file" },
      make("code", {}, `curl -F "file=@example.txt" ${url}`)),
  ];
}

function row(entry) {
  const name = entry.path.slice(directory.length);
  if (entry.kind === "directory") {
    return [make("a", { href: hash(entry.path) }, named(name)), "directory", "", ""];
  }
  const stored = new Date(entry.modified);
  const get = make("a", { href: `download/${encodePath(entry.path)}`, download: true }, "Download ",
    make("span", { class: "unseen" }, named(name)));
  return [named(name), bytes(entry.size), make("time", { datetime: entry.modified }, moment(stored)), get];
}

function note(text) {
  say(byId("listing-note"), text);
}

// Who stands on a link stays on it when the list is made again.
function keepFocus(change) {
  const held = byId("listing").contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  change();
  if (held === null) return;
  const links = [...byId("listing").querySelectorAll("a")];
  links.find((link) => link.getAttribute("href") === held)?.focus();
}
