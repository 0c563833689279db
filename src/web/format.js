// Numbers, sizes and times as people read them.

export function number(value, digits = 4) {
  if (value == null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function percent(value, digits = 1) {
  return value == null ? "–" : `${(value * 100).toFixed(digits)} %`;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** `timeStyle` "medium" has seconds. */
export function dateTime(text, timeStyle = "short") {
  return text == null ? "–" : new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle });
}

export function shortVersion(version) {
  return version.replace("sha256:", "").slice(0, 10);
}

export function shortId(id) {
  return id.slice(0, 8);
}

/** Name of a job, or the beginning of its id. */
export function jobTitle({ name, id }) {
  return name ?? shortId(id);
}

/** `learning_rate` → `learning rate`. */
export function words(name) {
  return String(name).replaceAll("_", " ");
}

export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}
