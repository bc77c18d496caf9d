// Numbers and states in words, as the command line writes them. Pure: values in, text out.

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

// `0 B`, `1.5 KiB`, `64.0 MiB`.
export function bytes(count) {
  if (!isNumber(count)) return "not told";
  if (count < 1024) return `${count} B`;
  let value = count / 1024;
  let unit = 0;
  while (value >= 1023.95 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(1)} ${UNITS[unit]}`;
}

// `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
export function seconds(count) {
  if (!isNumber(count)) return "not told";
  const whole = Math.floor(count);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60,
  ];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

// `1,234,567`.
export function thousands(number) {
  return isNumber(number) ? String(number).replace(/\B(?=(\d{3})+$)/g, ",") : "not told";
}

// `1 file`, `1,234 files`.
export function count(number, noun) {
  return `${thousands(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function percent(part, whole) {
  return whole > 0 ? (part * 100) / whole : 0;
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

// `10:31:02`, where the reader is.
export function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

// `2026-01-31 10:31`, where the reader is.
export function moment(date) {
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

// Chunks that are not as they should be, by what is wrong; worst first.
export const HEALTH = [
  ["missing", "bad", "no replica that can be read"],
  ["at-risk", "bad", "one replica left"],
  ["under-replicated", "warn", "too few replicas"],
  ["mis-replicated", "warn", "replicas badly spread"],
  ["over-replicated", "good", "more replicas than wanted"],
];

export function ofHealth(status, health) {
  const number = status.chunks?.[health];
  return isNumber(number) ? number : 0;
}

// The state in one word, and how bad it is: `good`, `note`, `warn` or `bad`. Worst first, as the
// tracker's own sentence.
export function verdict(status) {
  const weak = ofHealth(status, "under-replicated") + ofHealth(status, "mis-replicated");
  const silent = (status.datanodes?.suspect || 0) + (status.datanodes?.dead || 0);
  if (status.safe_mode) return { level: "warn", word: "Starting" };
  if (ofHealth(status, "missing") > 0) return { level: "bad", word: "Data missing" };
  if (status.writes_refused) return { level: "bad", word: "Read only" };
  if (ofHealth(status, "at-risk") > 0) return { level: "bad", word: "At risk" };
  if (weak > 0 || status.repair_held) return { level: "warn", word: "Degraded" };
  if (status.healthy !== true) return { level: "warn", word: "Attention" };
  if (silent > 0) return { level: "note", word: "Datanodes silent" };
  return { level: "good", word: "Fine" };
}

const MARKS = /[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/;

// A name in pieces: what is shown as it is, and what would turn or hide the rest and is named
// instead.
export function pieces(name) {
  const found = [];
  for (const letter of name) {
    const mark = MARKS.test(letter);
    const last = found.at(-1);
    if (mark) {
      const code = letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      found.push({ mark, text: `U+${code}` });
    } else if (last && !last.mark) {
      last.text += letter;
    } else {
      found.push({ mark, text: letter });
    }
  }
  return found;
}

// A path as it stands in a URL.
export function encodePath(path) {
  return path.split("/").map(encodeURIComponent).join("/");
}
