// Edits of an annotation: lists of segments [start, stop) in, new lists out. Nothing here knows the page.
// Segments stay in order of time, never overlap, and none is ever shorter than a frame.

/** @typedef {import("milepost/source").Segment} Segment */

const copy = (segments) => segments.map((one) => ({ ...one }));

/** The place of the segment that shows this frame, -1 in a gap. @param {Segment[]} segments */
export function at(segments, frame) {
  return segments.findIndex((one) => one.start <= frame && frame < one.stop);
}

/** Do both say the same? */
export function same(a, b) {
  return a.length === b.length && a.every((one, k) => one.name === b[k].name && one.start === b[k].start && one.stop === b[k].stop);
}

/**
 * The borders that can be moved, in order of time: one where two segments touch (left and right are set), else an end of one.
 * @returns {{frame: number, left: number, right: number}[]} left, right: places of the segments, -1 for none
 */
export function borders(segments) {
  const found = [];
  segments.forEach((one, k) => {
    const touches = k > 0 && segments[k - 1].stop === one.start;
    if (!touches) found.push({ frame: one.start, left: -1, right: k });
    const next = segments[k + 1];
    found.push({ frame: one.stop, left: k, right: next && next.start === one.stop ? k + 1 : -1 });
  });
  return found;
}

/** How far a border may go: [lowest, highest] frame that leaves every segment a frame. */
export function reach(segments, border, length) {
  const before = border.left >= 0 ? segments[border.left].start + 1 : border.right > 0 ? segments[border.right - 1].stop : 0;
  const after =
    border.right >= 0 ? segments[border.right].stop - 1 : border.left + 1 < segments.length ? segments[border.left + 1].start : length;
  return [before, after];
}

/** The border put at a frame, as near as it may go. */
export function moveBorder(segments, border, frame, length) {
  const [lowest, highest] = reach(segments, border, length);
  const to = Math.min(highest, Math.max(lowest, Math.round(frame)));
  const moved = copy(segments);
  if (border.left >= 0) moved[border.left].stop = to;
  if (border.right >= 0) moved[border.right].start = to;
  return moved;
}

/** Cut in two before `frame`; the second part gets `name`. Null where there is nothing to cut. */
export function split(segments, frame, name) {
  const place = at(segments, frame);
  if (place < 0 || segments[place].start === frame) return null;
  const parts = copy(segments);
  parts.splice(place + 1, 0, { name, start: frame, stop: parts[place].stop });
  parts[place].stop = frame;
  return parts;
}

/** Another name for one segment; a neighbour it touches that has the same name becomes one with it. */
export function rename(segments, place, name) {
  const named = copy(segments);
  named[place].name = name;
  return merged(named);
}

function merged(segments) {
  const out = [];
  for (const one of segments) {
    const last = out.at(-1);
    if (last && last.name === one.name && last.stop === one.start) last.stop = one.stop;
    else out.push(one);
  }
  return out;
}

/** Without one segment. The neighbour before it grows over its frames, else the one after; with `gap` nobody does. */
export function remove(segments, place, gap = false) {
  const left = copy(segments);
  const [gone] = left.splice(place, 1);
  const before = left[place - 1],
    after = left[place];
  if (!gap && before && before.stop === gone.start) before.stop = gone.stop;
  else if (!gap && after && after.start === gone.stop) after.start = gone.start;
  return merged(left);
}

/** The gap around a frame, as [start, stop); null inside a segment. */
export function gapAt(segments, frame, length) {
  if (at(segments, frame) >= 0) return null;
  const before = segments.filter((one) => one.stop <= frame).at(-1);
  const after = segments.find((one) => one.start > frame);
  return [before ? before.stop : 0, after ? after.start : length];
}

/** A new segment over the gap around a frame. Null inside a segment. */
export function add(segments, frame, name, length) {
  const gap = gapAt(segments, frame, length);
  if (!gap) return null;
  const grown = [...copy(segments), { name, start: gap[0], stop: gap[1] }];
  return merged(grown.sort((a, b) => a.start - b.start));
}

/** The stage that usually follows: the next in the list of names, the first after nothing, the last after itself. */
export function following(names, name) {
  const place = names.indexOf(name);
  return names[Math.min(place + 1, names.length - 1)] || name || "";
}

/** Runs of equal numbers as [{value, start, stop}], unknown (null, -1) left out. */
export function runs(values) {
  const out = [];
  values.forEach((value, frame) => {
    if (value === null || value < 0) return;
    const last = out.at(-1);
    if (last && last.value === value && last.stop === frame) last.stop = frame + 1;
    else out.push({ value, start: frame, stop: frame + 1 });
  });
  return out;
}
