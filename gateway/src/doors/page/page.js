// The page: asks the store how it is every few seconds while somebody looks, and shows the answer.
// While nothing answers it keeps the last picture, says since when, and asks ever more rarely.

import { byId, say } from "./dom.js";
import * as files from "./files.js";
import { show, showFresh, showSilence } from "./status.js";
import * as upload from "./upload.js";
import { clock, seconds, verdict } from "./words.js";

// Milliseconds: between two questions, at most between two, and for one answer.
const PAUSE = 5_000;
const LONGEST_PAUSE = 60_000;
const PATIENCE = 8_000;

// The store as it last was, and when that was.
let picture = null;
// Answers that did not come, one after the other.
let misses = 0;
let asking = null;
let timer = null;

async function ask() {
  clearTimeout(timer);
  timer = null;
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const limit = setTimeout(() => mine.abort(), PATIENCE);
  let answer;
  try {
    answer = await read(mine.signal);
  } catch (error) {
    // Another question took this one's place, or nobody looks any more.
    if (asking !== mine) return;
    answer = { miss: mine.signal.aborted ? "The tracker does not answer" : reason(error) };
  } finally {
    clearTimeout(limit);
  }
  if (asking !== mine) return;
  asking = null;
  take(answer);
  if (!document.hidden) timer = setTimeout(ask, pause());
}

function take({ miss, status }) {
  if (miss) return missed(miss);
  try {
    answered(status);
  } catch {
    missed("The answer was not understood");
  }
}

function pause() {
  return Math.min(LONGEST_PAUSE, PAUSE * 2 ** Math.max(0, misses - 1));
}

async function read(signal) {
  const response = await fetch("status", { signal, cache: "no-store", headers: { accept: "application/json" } });
  if (response.ok) return { status: await response.json() };
  // A proxy before the door has its own way to say so.
  const problem = await response.json().catch(() => ({}));
  return { miss: problem.detail ? `This door answers: ${problem.detail}` : `This door answers ${response.status}` };
}

function reason(error) {
  return error instanceof SyntaxError ? "The answer was not understood" : "This door does not answer";
}

function answered(status) {
  misses = 0;
  const { level, word } = verdict(status);
  picture = { status, at: new Date() };
  showFresh();
  show(status);
  state(level, word, status.summary ?? "");
  const { cluster = "", version = "", fence, uptime_seconds: up } = status;
  say(byId("cluster"), `cluster ${cluster}`);
  say(byId("versions"), `dfs ${version}, cluster ${cluster}, tracker up ${seconds(up)}, epoch ${fence?.epoch ?? "not told"}`);
  say(byId("freshness"), `Answered at ${clock(picture.at)}; asked every ${PAUSE / 1000} s while this page is looked at.`);
  files.changed(status);
}

function missed(why) {
  misses += 1;
  const since = picture && clock(picture.at);
  showSilence(since);
  const known = since ? `What stands below is from ${since}, the last answer.` : "There was no answer yet.";
  state("bad", "No answer", `${why}. Nobody knows from here whether files can be read or written. ${known}`);
  const next = document.hidden ? "" : ` Asks again at ${clock(new Date(Date.now() + pause()))}.`;
  say(byId("freshness"), `${since ? `No answer since ${since}.` : "No answer."}${next}`);
}

// The state: on the page, in the title, and read out when it is another one.
function state(level, word, sentence) {
  const name = picture ? ` · dfs ${String(picture.status.cluster).slice(0, 8)}` : " · dfs";
  document.title = `${word}${name}`;
  byId("verdict").dataset.level = level;
  say(byId("sentence"), sentence);
  if (byId("word").textContent !== word) {
    say(byId("word"), word);
    say(byId("said"), `State of the store: ${word}. ${sentence}`);
  }
}

function looked() {
  if (document.hidden) {
    clearTimeout(timer);
    asking?.abort();
    asking = null;
  } else {
    ask();
  }
}

byId("main").hidden = false;
byId("again").addEventListener("click", ask);
document.addEventListener("visibilitychange", looked);
files.start();
upload.start();
ask();
