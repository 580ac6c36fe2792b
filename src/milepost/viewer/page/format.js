// Numbers and names in words: what is unknown is a dash, never a zero.

const MINUS = "\u2212";
export const DASH = "\u2013";

/** A number with `digits` decimals, or a dash. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  return value.toFixed(digits).replace("-", MINUS);
}

/** Whole numbers with thin spaces between thousands: 12 345. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** Frames as a clock: 75.25 s is 1:15.25. */
export function clock(seconds) {
  const minutes = Math.floor(seconds / 60 + 1e-9);
  const rest = Math.max(0, seconds - 60 * minutes);
  return `${minutes}:${rest.toFixed(2).padStart(5, "0")}`;
}

/** Seconds with a unit, short. */
export function seconds(value) {
  return `${value.toFixed(value < 10 ? 2 : 1)}\u202fs`;
}

/** "never_finished" -> "Never finished". */
export function title(name) {
  const words = String(name).replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The camera without LeRobot's "observation.images.". */
export function cameraName(key) {
  return key.replace(/^observation\.images?\.?/, "") || key;
}

/** How large an event is, in the words of its kind: progress or seconds. */
export function eventSize(event) {
  if (event.size === null || event.size === undefined) return "";
  if (event.kind === "stall" || event.kind === "idle_tail") return seconds(event.size);
  const sign = event.kind === "jump" ? "+" : MINUS;
  return event.kind === "never_finished" ? `${number(event.size)} short` : `${sign}${number(event.size)}`;
}

/** "episode" or "episodes". */
export function plural(many, one, more = `${one}s`) {
  return `${count(many)} ${many === 1 ? one : more}`;
}

/** Black or white: which is easier to read on this "#rrggbb"? (WCAG contrast) */
export function inkOn(colour) {
  const light = [1, 3, 5].map((at) => {
    const c = parseInt(colour.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  return luminance > 0.2 ? "#10161c" : "#ffffff";
}
