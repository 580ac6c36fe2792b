// The small curve of an episode in the list: 32 values drawn as a line with its area, gaps where nothing is known.

import { svg } from "milepost/dom";

/** Base64 of bytes (255 unknown, 0..254 progress) -> numbers in [0, 1] or null. */
function sparkValues(text) {
  return Array.from(atob(text || ""), (letter) => {
    const byte = letter.charCodeAt(0);
    return byte === 255 ? null : byte / 254;
  });
}

/** The small picture of these values. */
export function spark(text) {
  const values = sparkValues(text);
  const step = 120 / Math.max(1, values.length - 1);
  let [line, area, begun] = ["", "", null];
  values.forEach((value, k) => {
    if (value === null) {
      if (begun !== null) area += `L${(k - 1) * step} 20Z`;
      begun = null;
      return;
    }
    const point = `${(k * step).toFixed(1)} ${(19 - 18 * value).toFixed(1)}`;
    line += begun === null ? `M${point}` : `L${point}`;
    area += begun === null ? `M${(k * step).toFixed(1)} 20L${point}` : `L${point}`;
    begun = k;
  });
  if (begun !== null) area += "L120 20Z";
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 120 20", width: 120, height: 20, "aria-hidden": "true" },
    svg("path", { class: "fill", d: area }),
    svg("path", { class: "line", d: line }),
  );
}
