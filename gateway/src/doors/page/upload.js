// Storing files from the page: chosen or dropped, one at a time, with progress. A file that is there
// already is replaced only when the reader says so.

import { bar, byId, make, named } from "./dom.js";
import * as files from "./files.js";
import { bytes, encodePath } from "./words.js";

const queue = [];
let sending = false;

export function start() {
  const chosen = byId("chosen");
  chosen.addEventListener("change", () => {
    add(chosen.files);
    chosen.value = "";
  });
  byId("upload").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
  });
}

function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

function add(list) {
  for (const file of list) {
    const item = make("li");
    byId("uploads").append(item);
    const task = { file, path: files.here() + file.name, item, replace: false };
    say(task, "waits");
    queue.push(task);
  }
  work();
}

async function work() {
  if (sending) return;
  sending = true;
  for (let task = queue.shift(); task; task = queue.shift()) {
    // A name that cannot be sent must not keep the others waiting.
    const { status, detail } = await send(task).catch((error) => ({ status: 0, detail: error.message }));
    ended(task, status, detail);
  }
  sending = false;
  files.again();
}

function ended(task, status, detail) {
  if (status === 200 || status === 201) say(task, "stored");
  else if (status === 412) say(task, "is there already", button("Replace it", task, { replace: true }));
  else say(task, `not stored: ${detail}`, button("Try again", task, {}));
}

function button(text, task, change) {
  const made = make("button", { type: "button" }, text, " ", make("span", { class: "unseen" }, named(task.path)));
  made.addEventListener("click", () => {
    Object.assign(task, change);
    say(task, "waits");
    queue.push(task);
    work();
  });
  return made;
}

// The item's text; what was there is replaced.
function say(task, text, ...more) {
  task.item.replaceChildren(named(task.path), make("span", {}, ` ${text} `), ...more);
}

// Sends one file. What was answered; status 0 when nothing was.
function send(task) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const cancel = make("button", { type: "button" }, "Cancel ", make("span", { class: "unseen" }, named(task.path)));
    cancel.addEventListener("click", () => request.abort());
    const told = make("span");
    const drawn = make("span");
    const progress = (sent, whole) => {
      const text = `${bytes(sent)} of ${bytes(whole)}`;
      told.textContent = ` ${text} `;
      drawn.replaceChildren(bar("Upload", sent, whole, text));
    };
    task.item.replaceChildren(named(task.path), told, drawn, cancel);
    request.upload.addEventListener("progress", ({ loaded }) => progress(loaded, Math.max(loaded, task.file.size)));
    request.addEventListener("load", () => resolve({ status: request.status, detail: detail(request) }));
    request.addEventListener("error", () => resolve({ status: 0, detail: "the connection broke" }));
    request.addEventListener("abort", () => resolve({ status: 0, detail: "cancelled" }));
    request.open("PUT", `files/${encodePath(task.path)}`);
    request.setRequestHeader("Content-Type", task.file.type || "application/octet-stream");
    if (!task.replace) request.setRequestHeader("If-None-Match", "*");
    progress(0, task.file.size);
    request.send(task.file);
  });
}

function detail(request) {
  try {
    const { detail: text, next } = JSON.parse(request.responseText);
    return next ? `${text}; ${next}` : text;
  } catch {
    return `the door answers ${request.status}`;
  }
}
