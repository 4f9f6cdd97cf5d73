// Numbers and times as people read them.

/** A number with about three digits that matter. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(1);
  if (size >= 0.01) return value.toFixed(3);
  return size === 0 ? "0" : value.toPrecision(3).replace(/e([+-])0?/, "e$1");
}

/** A share as a percentage. */
export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
}

/** What took the time, from the name of a number of seconds. */
export function partOf(key) {
  const known = { rollout_seconds: "conversations", train_seconds: "learning", eval_seconds: "evaluation" };
  return known[key] ?? key.replace(/_seconds$/, "").replaceAll("_", " ");
}

/** Seconds as the largest unit that says something. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** How long ago. */
export function ago(seconds) {
  return seconds === null || seconds === undefined ? "–" : `${duration(seconds)} ago`;
}

/** Bytes as kB, MB or GB. */
export function bytes(count) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= size) return `${(count / size).toFixed(1)} ${unit}`;
  }
  return `${count} bytes`;
}

/** A signed number: +0.42, −0.10. */
export function signed(value) {
  return value < 0 ? `−${number(-value)}` : `+${number(value)}`;
}
