// The cards: what one answer of /status says, and what it does not say.

import { bar, byId, line, make, table } from "./dom.js";
import { HEALTH, bytes, count, isNumber, ofHealth, percent, seconds, thousands } from "./words.js";

// What the repair under way began with, as far as this page saw it.
let began = null;

const CARDS = { use, data, repair, room, datanodes };

// Fills every card. One that does not understand its part of the answer says so, and the others stand.
export function show(status) {
  for (const [id, fill] of Object.entries(CARDS)) {
    let children;
    try {
      children = fill(status);
    } catch {
      children = [line("warn", "This part of the answer was not understood.")];
    }
    body(id).replaceChildren(...children.filter((child) => child !== null));
  }
}

// Nobody knows whether files can be read while nothing answers; what was known of the rest stays.
export function showSilence(since) {
  body("use").replaceChildren(
    line("bad", "Reading: unknown, nothing answers"), line("bad", "Writing: unknown, nothing answers"));
  for (const id of Object.keys(CARDS)) {
    old(id, id === "use" ? null : since);
    if (since === null && id !== "use") body(id).replaceChildren(line("warn", "Not known yet."));
  }
  old("files", since);
}

// What is shown is of now.
export function showFresh() {
  for (const id of [...Object.keys(CARDS), "files"]) old(id, null);
}

// A section that shows what was, and when.
function old(id, since) {
  const text = since === null ? "" : `as of ${since}`;
  byId(id).dataset.old = text;
  byId(id).querySelector("h2").dataset.old = text;
}

function body(id) {
  return byId(id).querySelector(".body");
}

function use(status) {
  const missing = ofHealth(status, "missing");
  const reading = () => {
    if (status.safe_mode) return line("warn", "Reading: files whose datanodes have reported");
    if (missing > 0) return line("bad", `Reading: not all; ${count(missing, "chunk")} cannot be read now`);
    return line("good", "Reading: yes");
  };
  const writing = status.writes_refused
    ? line("bad", `Writing: no, ${status.writes_refused}`)
    : line("good", "Writing: yes");
  return [
    reading(), writing,
    status.safe_mode ? line("warn", `Safe mode: ${status.safe_mode}`) : null,
    make("p", { class: "quiet" }, `${count(status.files, "file")}, ${bytes(status.file_bytes)}`),
  ];
}

function data(status) {
  const total = Object.values(status.chunks).reduce((sum, number) => sum + number, 0);
  const wanted = status.replication_factor;
  const healthy = ofHealth(status, "healthy");
  const lines = HEALTH.map(([health, level, text]) => {
    const number = ofHealth(status, health);
    return number > 0 ? line(level, `${count(number, "chunk")}: ${text}`) : null;
  });
  if (lines.every((one) => one === null)) {
    // A store without files has a chunk too: the checkpoint of its catalog.
    lines.unshift(line("good", status.files === 0 ? "Nothing is stored yet" : "Every chunk has all its replicas"));
  }
  return [
    ...lines, ...shortage(status.shortage ?? {}),
    make("p", { class: "quiet" },
      `${thousands(healthy)} of ${count(total, "chunk")} healthy, ${count(wanted, "replica")} wanted of each`),
    status.spread?.possible === false ? line("warn", status.spread.sentence) : null,
  ];
}

const CAUSES = [
  ["removal", "for a datanode taken away too early"],
  ["absence", "for silent datanodes or lost disks"],
  ["leaving", "readable in full, on leaving datanodes"],
  ["raising", "for a raised factor"],
];

// Why chunks have fewer replicas than wanted.
function shortage(of) {
  const causes = CAUSES.filter(([cause]) => of[cause] > 0)
    .map(([cause, text]) => `${thousands(of[cause])} ${text}`);
  return [
    causes.length > 0 ? make("p", { class: "quiet" }, `Too few: ${causes.join("; ")}`) : null,
    of.unreachable ? line("warn", of.unreachable) : null,
  ];
}

function repair(status) {
  const { queued, active, bytes_remaining: left, eta_seconds: eta } = status.repair;
  const waiting = Object.values(queued).reduce((sum, number) => sum + number, 0);
  const held = status.repair_held ? line("warn", `Held: ${status.repair_held}`) : null;
  if (waiting + active === 0) {
    began = null;
    return [held ?? line("good", "Nothing to repair"), ...rebalance(status.rebalance)];
  }
  began = Math.max(began ?? 0, left);
  const done = began - left;
  const end = isNumber(eta) ? `done in about ${seconds(eta)}` : "no estimate of its end yet";
  const text = `${bytes(left)} to copy, ${end}`;
  return [
    held, line("note", `${count(waiting, "chunk")} waiting, ${thousands(active)} being copied`),
    bar("Repair", done, began, `${text}; ${bytes(done)} of ${bytes(began)} done`),
    make("p", {}, text),
    make("p", { class: "quiet" }, `${bytes(done)} of ${bytes(began)} done since this page looks`),
    ...rebalance(status.rebalance),
  ];
}

function rebalance(moves) {
  if (!moves?.running) return [];
  return [make("p", { class: "quiet" }, `Evening out volumes: ${bytes(moves.bytes_to_go)} to move`)];
}

function room(status) {
  const { total_bytes: total, used_bytes: used, free_bytes: free } = status.capacity;
  if (![total, used, free].every(isNumber)) return [line("warn", "The answer does not tell.")];
  if (total === 0) return [line("warn", "No datanode has told of a volume yet")];
  const text = `${bytes(used)} used, ${bytes(free)} free of ${bytes(total)}`;
  const files = free / Math.max(1, status.replication_factor);
  const trash = status.trash?.entries > 0
    ? `; the trash holds ${count(status.trash.entries, "version")}, ${bytes(status.trash.bytes)}` : "";
  return [
    bar("Room", total - free, total, text, "meter"),
    make("p", {}, text),
    make("p", { class: "quiet" },
      `${percent(total - free, total).toFixed(1)} % is taken, by this store or others on the same volumes; about ` +
      `${bytes(Math.floor(files))} of files fit${trash}`),
  ];
}

function datanodes(status) {
  const of = status.datanodes;
  const some = (level) => (number) => (number > 0 ? level : "idle");
  const rows = [
    ["Live", of.live, "heard within the last heartbeats", some("good")],
    ["Suspect", of.suspect, "three heartbeats missed", some("warn")],
    ["Dead", of.dead, "ten heartbeats missed: what they held is copied elsewhere", some("bad")],
    ["Waiting", of.pending, "to be admitted", some("note")],
    ["Being emptied", of.decommissioning, "their chunks are copied elsewhere", some("note")],
    ["Read-only", of.read_only, "full or with a sick disk: nothing new goes there", some("warn")],
    ["Take chunks", of.placeable, "would take a new chunk now",
      (number) => (number >= status.replication_factor ? "good" : "warn")],
  ];
  const cells = rows.map(([state, number, text, level]) => (
    { level: isNumber(number) ? level(number) : "warn", cells: [state, thousands(number), text] }));
  return [
    make("p", {}, `${thousands(of.live)} of ${count(of.registered, "datanode")} live`),
    table("Datanodes by state", ["State", "Datanodes", "Meaning"], cells),
  ];
}
