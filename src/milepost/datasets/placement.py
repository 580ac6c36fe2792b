"""Assigns the images of a video to rows: by counting, never by guessing. Numbers in, numbers out; opens no file.

The parts of a video (one for each episode) must account for its images in one of two ways. Either the video has as many images as all parts
together, and each part begins at the image that counting gives. Or the times in meta/ put every part on the image grid, apart from the
others, up to the video's last image. Every other video is refused: if it has one image more or less than its rows, nobody knows whether
that image is at the front. Time starts at the video's first image, whatever its stamp. Inside a part, row i has image i; where the row's
time stamp fits the images, so does its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from milepost.core import UnreadableError

TENTH = 0.1
"""How far from an image, in images, a part may begin: LeRobot's own times are off by a thousandth, a drift grows beyond it."""


@dataclass(frozen=True)
class Part:
    """An episode's part of a video in meta/. start_s, stop_s: seconds, None if meta/ has none, never NaN. length: its rows.

    follows: whether meta/ lists the episode before it, with a place. If so, no lost or deleted episode explains images between the two.
    before, after: images beside the part that belong to no row, as a copy that leaves rows out writes into meta/.
    """

    episode: int
    start_s: float | None
    stop_s: float | None
    length: int
    follows: bool = False
    before: int = 0
    after: int = 0

    def widened(self, fps: float) -> Part:
        """Returns the part with the images beside it, as if they had rows."""
        start = None if self.start_s is None else self.start_s - self.before / fps
        stop = None if self.stop_s is None else self.stop_s + self.after / fps
        return Part(self.episode, start, stop, self.before + self.length + self.after, self.follows)


@dataclass(frozen=True)
class Placed:
    """The images of an episode. first: the image of its first row, in steps of `step`. count: images in its part. fault: why it is refused.

    note: something odd although the images are certain. alone: whether the part is the whole video. spare: images that meta/ leaves out and
    nothing accounts for; they may be a deleted episode's. shuffled: whether the parts are in another order than the episodes.
    """

    first: int
    count: int
    fault: str = ""
    note: str = ""
    step: int = 1
    alone: bool = False
    spare: int = 0
    shuffled: bool = False

    @property
    def spared(self) -> str:
        """Returns the warning about images that meta/ leaves out, "" if there are none."""
        if not self.spare:
            return ""
        return (
            f"meta/ leaves {self.spare} pictures of the film to no episode; as its times say, they are taken for those of deleted ones; "
            "look whether the pictures fit"
        )

    @property
    def order(self) -> str:
        """Returns the warning about episodes in another order in the video than by index, which LeRobot never writes; "" if they are in
        order.
        """
        return "by meta/ its episodes are not in the order of their numbers; look whether the pictures fit" if self.shuffled else ""


@lru_cache(maxsize=128)
def place(
    parts: tuple[Part, ...], image_count: int, fps: float, video_fps: float, start_s: float = 0.0, strays: tuple[int, ...] = ()
) -> Mapping[int, Placed]:
    """Returns where each episode's images are among the video's, counted from 0 in the order they are shown.

    fps: of the rows. video_fps: of the video. start_s: the stamp of its first image.
    strays: how many rows may follow that meta/ places nowhere. Images that meta/ says belong to no row are counted, and left out.
    """
    if fps > 0 and any(part.before or part.after for part in parts):
        whole = place(tuple(part.widened(fps) for part in parts), image_count, fps, video_fps, start_s, strays)
        return {part.episode: _narrowed(whole[part.episode], part) for part in parts}
    step = round(video_fps / fps) if fps > 0 and abs(video_fps / fps - round(video_fps / fps)) < 0.01 else 1
    step = max(1, step)
    total = sum(part.length for part in parts)
    if step > 1 and not step * (total - 1) < image_count <= step * total:
        step = 1
    available = -(-image_count // step)
    rates = (fps, video_fps / step)
    if len(parts) == 1:  # whatever meta/ says of it, the film is this episode's; `offsets` compares the counts
        return {parts[0].episode: Placed(0, available, note=_late(start_s, fps), step=step, alone=True)}
    candidates = [_counted(parts, [part.length for part in parts], available, rates, start_s)]
    spans = [part.length if part.start_s is None or part.stop_s is None else (part.stop_s - part.start_s) * fps for part in parts]
    if all(abs(span - round(span)) <= TENTH for span in spans):  # a span between two images is a wrong time, and counts nothing
        candidates.append(_counted(parts, [round(span) for span in spans], available, rates, start_s))
    best = max(candidates, key=len)
    if best:
        firsts = np.cumsum([0, *(part.length for part in parts)]).tolist()
        placements = {
            part.episode: best.get(part.episode) or _misplaced(part, first, available, fps)
            for part, first in zip(parts, firsts, strict=False)
        }
        return _finished(placements, step)
    timed = _timed(parts, available, fps, strays)
    if timed is not None and (abs(start_s * fps) < TENTH or available == total):
        return _finished(_accounted(parts, timed), step)
    return {part.episode: Placed(-1, 0, fault=_unaccounted(parts, available, start_s, fps)) for part in parts}


def _narrowed(whole: Placed, part: Part) -> Placed:
    """Returns the place of a part's own images."""
    return whole if whole.fault else replace(whole, first=whole.first + part.before, count=whole.count - part.before - part.after)


def _finished(placements: Mapping[int, Placed], step: int) -> dict[int, Placed]:
    """Returns the parts with the step, and whether their order is not that of the episodes' numbers."""
    firsts = [placements[episode].first for episode in sorted(placements) if not placements[episode].fault]
    is_shuffled = firsts != sorted(firsts)
    return {episode: replace(each, step=step, shuffled=is_shuffled) for episode, each in placements.items()}


def unsteady(stamps: Float[np.ndarray, "P"], fps: float) -> str:
    """Returns why the images of a video cannot be counted though their number is right; "" if they can.

    stamps: of its images, in order. fps: images a second that it should have. Somewhere an image is missing and elsewhere one is too
    many: counting is off by one between the two, and the times come back to the count in the end. A video that only starts late, pauses or
    has another rate throughout does not come back.
    """
    if len(stamps) < 3:
        return ""
    ahead = (stamps - stamps[0]) * fps - np.arange(len(stamps))
    worst = int(np.argmax(np.abs(ahead)))
    if abs(ahead[-1]) >= 0.5 or abs(ahead[worst]) <= 0.75:
        return ""
    return (
        f"has pictures missing and others too many: picture {worst} is stamped {stamps[worst]:.4f} s, {abs(ahead[worst]):.1f} pictures "
        f"{'later' if ahead[worst] > 0 else 'earlier'} than counting says, and the last ones agree again; record or convert it again"
    )


def pause(stamps: Float[np.ndarray, "T"], times: Float[np.ndarray, "T"], fps: float) -> str:
    """Returns where a video makes a pause that its rows do not make; "" if nowhere. stamps: of the rows' images. times: the rows' own.

    The camera may have slept, and an image a row is right; or images are missing there and as many are too many at the end. Only the
    images themselves could tell.
    """
    if len(stamps) < 3:
        return ""
    steps, rows = np.diff(stamps) * fps, np.diff(np.asarray(times, np.float64)) * fps
    longer = np.minimum(steps - np.median(steps), steps - np.median(steps) - (rows - np.median(rows)))
    worst = int(np.argmax(longer))
    if longer[worst] < 0.75:
        return ""
    return (
        f"the film pauses {longer[worst]:.1f} pictures long before frame {worst + 1} while the rows go on: there is one picture a row and "
        "position decides which, but pictures may be missing there; look whether the later ones fit"
    )


def _counted(parts: Sequence[Part], counts: Sequence[int], available: int, rates: tuple[float, float], start_s: float) -> dict[int, Placed]:
    """Returns the parts that begin where counting says, if the video has as many images as all of them together."""
    if sum(counts) != available or min(counts, default=0) < 0:
        return {}
    best: dict[int, Placed] = {}
    by_time = sorted(range(len(parts)), key=lambda i: (parts[i].start_s is None, parts[i].start_s or 0.0))
    for order in (range(len(parts)), by_time):
        firsts = np.concatenate([[0], np.cumsum([counts[i] for i in order])]).astype(int).tolist()
        for rate in rates:
            for zero in (0.0, start_s):
                fitting = {
                    parts[i].episode: Placed(first, counts[i], note=_late(start_s, rate))
                    for i, first in zip(order, firsts[:-1], strict=True)
                    if (start := parts[i].start_s) is not None and abs((start - zero) * rate - first) <= TENTH
                }
                if len(fitting) > len(best):
                    best = fitting
    return best


def _timed(parts: Sequence[Part], available: int, fps: float, strays: tuple[int, ...]) -> dict[int, Placed] | None:
    """Returns all parts by meta/'s times, if those put each on the grid, apart from the others, up to the video's last image."""
    if any(part.start_s is None for part in parts):
        return None
    firsts = [(part.start_s or 0.0) * fps for part in parts]
    end = 0
    for first, part in sorted(zip(firsts, parts, strict=True), key=lambda each: each[0]):
        if abs(first - round(first)) > TENTH or round(first) < end:
            return None
        end = round(first) + part.length
    if available != end and available - end not in strays:
        return None
    return {part.episode: Placed(round(first), part.length) for first, part in zip(firsts, parts, strict=True)}


def _accounted(parts: Sequence[Part], timed: Mapping[int, Placed]) -> dict[int, Placed]:
    """Returns the parts, or their refusal where meta/'s times leave images out between two episodes that nothing explains.

    As many images as an episode may have (half of the shortest here, and at least two) may be those of one that was deleted and whose
    number was given away. Fewer are nobody's: then the times are as likely to be late by them.
    """
    end, spare, shortest = 0, 0, min((part.length for part in parts if part.length), default=0)
    for part in sorted(parts, key=lambda part: timed[part.episode].first):
        first = timed[part.episode].first
        hole = first - end if part.follows or not part.episode else 0
        if 0 < hole < max(2, shortest / 2):
            words = (
                f"has {hole} more picture{'' if hole == 1 else 's'} before episode {part.episode} than meta/ accounts for: its times may "
                "be late, or the film may have pictures of no episode; correct from_timestamp, or cut the film to its rows"
            )
            return {part.episode: Placed(-1, 0, fault=words) for part in parts}
        spare, end = spare + hole, first + part.length
    return {episode: replace(placement, spare=spare) for episode, placement in timed.items()}


def _late(start_s: float, fps: float) -> str:
    return f"its first picture is stamped {start_s:.4f} s; time is counted from there" if abs(start_s) * fps > TENTH else ""


def _misplaced(part: Part, expected_image: int, available: int, fps: float) -> Placed:
    """Returns the refusal of a part that does not begin where counting says, while others do. expected_image: where counting says."""
    if part.start_s is None:
        return Placed(-1, 0, fault="meta/ has no place for it")
    return Placed(-1, 0, fault=_off(part, available, fps, f"counting the pictures of all episodes says {expected_image / fps:.4f} s"))


def _off(part: Part, available: int, fps: float, reason: str) -> str:
    """Returns why a part's own time is not taken: there is no image, or it is not the one that counting says."""
    start_s = part.start_s or 0.0
    nearest = min(max(0, round(start_s * fps)), available - 1)
    is_image = abs(start_s * fps - nearest) <= TENTH
    what = "which is another episode's or nobody's picture" if is_image else f"the nearest picture is at {nearest / fps:.4f} s"
    return (
        f"frame 0 of the episode is wanted at {start_s:.4f} s, {what}: meta/'s times are wrong ({reason}); correct from_timestamp of "
        f"episode {part.episode}, or convert the recording again"
    )


def miscounted(images: int, rows: int) -> str:
    """Returns why a video that has not as many images as rows is not read."""
    if images < rows:
        return (
            f"is shorter than its rows: it holds {images} pictures for {rows} rows, and which pictures are missing cannot be known; record "
            "or download the file again"
        )
    return (
        f"holds {images} pictures for {rows} rows, and which of them belong to no row cannot be known, so none is read; cut the film to "
        "its rows, or convert the recording again"
    )


def _unaccounted(parts: Sequence[Part], available: int, start_s: float, fps: float) -> str:
    """Returns why no part of the video can be told from its neighbours."""
    total = sum(part.length for part in parts)
    if available != total:
        return miscounted(available, total)
    late = f"; its first picture is stamped {start_s:.4f} s" if abs(start_s) * fps > TENTH else ""
    first = min((part for part in parts if part.start_s is not None), key=lambda part: part.start_s or 0.0, default=None)
    return (
        "has episodes that meta/ has no place for"
        if first is None
        else _off(first, available, fps, f"no episode begins where counting says{late}")
    )


def offsets(times: Float[np.ndarray, "T"], placement: Placed, fps: float) -> tuple[Int[np.ndarray, "T"], str]:
    """Returns each row's image inside its part, and what is odd about the rows' time stamps. UnreadableError if there is no telling.

    times: the rows' own stamps. By position where the part has an image for each row; by time where the stamps lie on the
    image grid and end with the part.
    """
    count, at = len(times), np.asarray(times, np.float64) * fps
    nearest = np.rint(at).astype(np.int64)
    if np.array_equal(nearest, np.arange(count)) and placement.count == count:
        return nearest, ""
    on_grid = bool((np.abs(at - nearest) <= TENTH).all()) and bool((np.diff(nearest) > 0).all())
    if on_grid and nearest[0] >= 0 and nearest[-1] == placement.count - 1:
        return nearest, ""
    if placement.count == count and (placement.alone or not on_grid):
        return np.arange(count), "the rows' time stamps are not frame / fps; there is one picture a row, and position decides which"
    if placement.count != count:
        raise UnreadableError(miscounted(placement.count, count))
    raise UnreadableError(
        f"is shorter than its rows: rows are stamped {times[0]:.4f} to {times[-1]:.4f} s, the episode's part of the film has "
        f"{placement.count} pictures for {count} rows; meta/episodes and data do not belong together"
    )
