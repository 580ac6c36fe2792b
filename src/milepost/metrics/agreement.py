"""How far two annotations of an episode agree, what repeats of one have in common, and tables over episodes. numpy only.

A border is where one stage gives way to another (or to nothing); the episode's own ends are none. Borders of two annotations are compared
where they are of the same two stages, matched in order of time. Unmatched ones are counted as missed or extra, never given an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from jaxtyping import Int

from milepost.core import DataError, Segment
from milepost.metrics.evaluation import Estimate, mean_estimate
from milepost.metrics.scores import interval

TOLERANCES_S = (0.5, 1.0, 2.0)
OVERLAPS = (0.25, 0.5, 0.75)
Annotation = tuple[Segment, ...]


@dataclass(frozen=True)
class Border:
    """At this frame `before` gives way to `after`; None is nothing."""

    frame: int
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.before or '(nothing)'} → {self.after or '(nothing)'}"


def frame_names(annotation: Sequence[Segment], length: int) -> np.ndarray:
    """The stage of each frame (T,) object, None where there is none. Where segments overlap the later one counts."""
    names = np.full(length, None, dtype=object)
    for segment in annotation:
        names[segment.start : segment.stop] = segment.name
    return names


def segments_of_stages(stage: Int[np.ndarray, "T"], names: Sequence[str]) -> Annotation:
    """Runs of equal stage numbers as segments, -1 as nothing: the simulator's `truth.stage` as an annotation."""
    edges = np.flatnonzero(np.diff(stage)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(stage)]])
    return tuple(Segment(names[stage[a]], int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a and stage[a] >= 0)


def borders(annotation: Sequence[Segment], length: int) -> tuple[Border, ...]:
    """Where the stage changes inside the episode, in order. A stage that follows itself has a border too."""
    out: list[Border] = []
    at, last = 0, None
    for segment in sorted((s for s in annotation if s.stop > s.start), key=lambda s: (s.start, s.stop)):
        if segment.start > at:
            out += [Border(at, last, None), Border(segment.start, None, segment.name)]
        else:
            out.append(Border(segment.start, last, segment.name))
        at, last = segment.stop, segment.name
    return tuple(border for border in [*out, Border(at, last, None)] if 0 < border.frame < length)


def matched(a: Sequence[Border], b: Sequence[Border], *, within: float = float("inf")) -> tuple[tuple[Border, Border], ...]:
    """Pairs of borders of the same two stages, at most `within` frames apart, in order in both: as many as can be, then as near."""
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    unit = (1.0 + max([border.frame for border in (*a, *b)], default=0)) * (1 + min(len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j])
            apart = abs(one.frame - other.frame)
            if one.before == other.before and one.after == other.after and apart <= within:
                value = best[i][j] + 1 - apart / unit  # all distances together count less than one pair
                best[i + 1][j + 1] = max(best[i + 1][j + 1], value)
    out, i, j = [], len(a), len(b)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            out.append((a[i], b[j]))
    return tuple(out[::-1])


def overlap_hits(a: Sequence[Segment], b: Sequence[Segment], overlap: float) -> int:
    """Segments of a that share at least this part of their union with one of b of the same name, each of b counted once (F1@IoU)."""
    free = [segment for segment in b if segment.stop > segment.start]
    hits = 0
    for segment in a:
        share, best = max(((_iou(segment, other), k) for k, other in enumerate(free) if other.name == segment.name), default=(0.0, -1))
        if best >= 0 and share >= overlap > 0:
            hits += 1
            free.pop(best)
    return hits


def _iou(a: Segment, b: Segment) -> float:
    common = max(0, min(a.stop, b.stop) - max(a.start, b.start))
    return common / (a.stop - a.start + b.stop - b.start - common) if common else 0.0


def frame_accuracy(a: Sequence[Segment], b: Sequence[Segment], length: int) -> float:
    """Share of the frames that b annotates on which a says the same; NaN if b annotates none."""
    said, true = frame_names(a, length), frame_names(b, length)
    known = np.array([name is not None for name in true])
    return float(np.mean(said[known] == true[known])) if known.any() else float("nan")


@dataclass(frozen=True)
class EpisodeAgreement:
    """One episode: errors (border's name, a - b in seconds); how many borders and segments each has, and how many agree at a tolerance."""

    episode: int
    errors: tuple[tuple[str, float], ...]
    borders_a: int
    borders_b: int
    border_hits: tuple[int, ...]
    segments_a: int
    segments_b: int
    segment_hits: tuple[int, ...]
    frame_accuracy: float
    same_sequence: bool

    @property
    def missed(self) -> int:
        return self.borders_b - len(self.errors)

    @property
    def extra(self) -> int:
        return self.borders_a - len(self.errors)


def agree(
    episode: int,
    a: Sequence[Segment],
    b: Sequence[Segment],
    *,
    length: int,
    fps: float,
    tolerances_s: Sequence[float] = TOLERANCES_S,
    overlaps: Sequence[float] = OVERLAPS,
) -> EpisodeAgreement:
    """Compare annotation a with b, the reference. DataError if one leaves the episode."""
    for segment in (*a, *b):
        if segment.stop > length:
            raise DataError(f"episode {episode}: segment '{segment.name}' ends at frame {segment.stop}, the episode has {length}")
    lasting_a, lasting_b = ([s for s in each if s.stop > s.start] for each in (a, b))
    mine, theirs = borders(a, length), borders(b, length)
    return EpisodeAgreement(
        episode=episode,
        errors=tuple((str(other), (one.frame - other.frame) / fps) for one, other in matched(mine, theirs)),
        borders_a=len(mine),
        borders_b=len(theirs),
        border_hits=tuple(len(matched(mine, theirs, within=tolerance * fps + 1e-9)) for tolerance in tolerances_s),
        segments_a=len(lasting_a),
        segments_b=len(lasting_b),
        segment_hits=tuple(overlap_hits(lasting_a, lasting_b, overlap) for overlap in overlaps),
        frame_accuracy=frame_accuracy(a, b, length),
        same_sequence=[s.name for s in lasting_a] == [s.name for s in lasting_b],
    )


@dataclass(frozen=True)
class Comparison:
    """a against b over the episodes both have. measures: name -> estimate, in words; borders: border -> (error, signed error) in seconds.

    only_a, only_b: episodes that one of them lacks; they are in no number.
    """

    measures: Mapping[str, Estimate]
    borders: Mapping[str, tuple[Estimate, Estimate]]
    missed: int
    extra: int
    episodes: tuple[EpisodeAgreement, ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]

    def worst(self) -> tuple[EpisodeAgreement, ...]:
        """Least agreement first: frames, then the sum of border errors."""
        return tuple(
            sorted(self.episodes, key=lambda e: (np.nan_to_num(e.frame_accuracy, nan=2.0), -sum(abs(s) for _, s in e.errors), e.episode))
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    a: Mapping[int, Annotation], b: Mapping[int, Annotation], *, lengths: Mapping[int, int], fps: float, rng: np.random.Generator
) -> Comparison:
    """Every episode that both annotate; b is the reference. 95 % bootstrap intervals over episodes. DataError if they share none."""
    both = sorted(number for number in set(a) & set(b) if a[number] and b[number])
    if not both:
        raise DataError("the two annotations have no annotated episode in common; check that they are of the same dataset and head")
    scores = tuple(agree(number, a[number], b[number], length=lengths[number], fps=fps) for number in both)
    by_border: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, error in score.errors:
            by_border[name].append(error)
    return Comparison(
        measures=_measures(scores, rng),
        borders={name: (mean_estimate(np.abs(errors).tolist(), rng), mean_estimate(errors, rng)) for name, errors in by_border.items()},
        missed=sum(score.missed for score in scores),
        extra=sum(score.extra for score in scores),
        episodes=scores,
        only_a=tuple(sorted(number for number in a if a[number] and number not in both)),
        only_b=tuple(sorted(number for number in b if b[number] and number not in both)),
    )


def _measures(scores: Sequence[EpisodeAgreement], rng: np.random.Generator) -> dict[str, Estimate]:
    count_borders = [score.borders_a + score.borders_b for score in scores]
    count_segments = [score.segments_a + score.segments_b for score in scores]
    errors = [sum(abs(seconds) for _, seconds in score.errors) for score in scores]
    out = {
        "border error, s": _ratio(errors, [len(score.errors) for score in scores], rng),
        "frame accuracy": mean_estimate([score.frame_accuracy for score in scores], rng),
        "same stages": mean_estimate([float(score.same_sequence) for score in scores], rng),
    }
    for place, tolerance in enumerate(TOLERANCES_S):
        out[f"border F1 within {tolerance:g} s"] = _ratio([2 * score.border_hits[place] for score in scores], count_borders, rng)
    for place, overlap in enumerate(OVERLAPS):
        out[f"segment F1 at overlap {overlap:g}"] = _ratio([2 * score.segment_hits[place] for score in scores], count_segments, rng)
    return out


def _ratio(top: Sequence[float | int], bottom: Sequence[int], rng: np.random.Generator) -> Estimate:
    """A ratio of sums over episodes; NaN where there is nothing to divide by. Episodes that add to neither sum are not counted."""
    pairs = np.array([pair for pair in zip(top, bottom, strict=True) if pair[1]], dtype=float).reshape(-1, 2)
    if not len(pairs):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)

    def ratio(places: np.ndarray) -> float:
        above, below = pairs[places.astype(int)].sum(axis=0)
        return float(above / below)

    everyone = np.arange(len(pairs))
    low, high = interval(ratio, everyone, rng=rng)
    return Estimate(ratio(everyone), low, high, len(pairs))


def measure_table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """(columns, rows): one row a measure."""
    return ("", "mean [95 %]", "episodes"), [(name, estimate, estimate.episodes) for name, estimate in comparison.measures.items()]


def border_table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """(columns, rows): one row a border; late is positive."""
    rows: list[tuple[object, ...]] = [(name, size, shift, size.episodes) for name, (size, shift) in comparison.borders.items()]
    return ("border", "error, s", "late by, s", "times"), rows


@dataclass(frozen=True)
class Agreed:
    """A border of the consensus: its median over the repeats that have the same sequence, and their whole range."""

    border: Border
    median_s: float
    spread_s: float


@dataclass(frozen=True)
class Consensus:
    """What repeats have in common. segments: median borders of the commonest sequence of stages.

    support: repeats that have that sequence, of `repeats`. disagreement: the share of frames on which two repeats differ, mean over pairs,
    in [0, 1]; a repeat that failed differs on all. NaN of a single one: unknown.
    """

    segments: Annotation
    borders: tuple[Agreed, ...]
    support: int
    repeats: int
    disagreement: float


def consensus(annotations: Sequence[Annotation], *, length: int, fps: float, failed: int = 0) -> Consensus:
    """Repeats of one episode as one annotation. Between sequences equally common, the one nearest to all repeats. failed: repeats without
    an annotation. DataError if all failed."""
    if not annotations:
        raise DataError("no repeat of this episode gave an annotation")
    said = [frame_names(annotation, length) for annotation in annotations]
    repeats = len(annotations) + failed
    pairs = [float(np.mean(said[i] != said[j])) for i, j in combinations(range(len(said)), 2)]
    differing = len(list(combinations(range(repeats), 2))) - len(pairs)
    disagreement = (sum(pairs) + differing) / (len(pairs) + differing) if repeats > 1 else float("nan")
    lasting = [[s for s in sorted(each, key=lambda s: (s.start, s.stop)) if s.stop > s.start] for each in annotations]
    keys = [_sequence(each, length) for each in lasting]
    counts = Counter(keys)
    nearness = {key: np.mean([np.mean(said[i] == other) for i, k in enumerate(keys) if k == key for other in said]) for key in counts}
    chosen = max(counts, key=lambda key: (counts[key], nearness[key]))
    members = [each for each, key in zip(lasting, keys, strict=True) if key == chosen]
    placed = [borders(each, length) for each in members]
    agreed = tuple(_agreed([each[k] for each in placed], fps) for k in range(len(placed[0])))
    return Consensus(_between([each.border for each in agreed], members[0], length), agreed, len(members), repeats, disagreement)


def _sequence(annotation: Sequence[Segment], length: int) -> tuple[object, ...]:
    first = annotation[0].name if annotation else None
    return (first, *((border.before, border.after) for border in borders(annotation, length)))


def _agreed(same: Sequence[Border], fps: float) -> Agreed:
    frames = np.array([border.frame for border in same])
    middle = float(np.median(frames))
    frame = int(np.floor(middle + 0.5))  # not to even: two borders a frame apart stay apart
    return Agreed(Border(frame, same[0].before, same[0].after), middle / fps, float(np.ptp(frames)) / fps)


def _between(agreed: Sequence[Border], member: Sequence[Segment], length: int) -> Annotation:
    """The segments that these borders cut. member: one of those who have them, for an episode without a border."""
    if not agreed:
        return tuple(Segment(segment.name, 0, length) for segment in member)
    names = [agreed[0].before, *(border.after for border in agreed)]
    edges = [0, *(border.frame for border in agreed), length]
    return tuple(Segment(name, a, b) for name, (a, b) in zip(names, pairwise(edges), strict=True) if name is not None)


def ranked(disagreement: Mapping[int, float]) -> tuple[int, ...]:
    """Episodes to look at, most disagreement first; those asked once, of whom nothing is known, last."""
    return tuple(sorted(disagreement, key=lambda number: (-np.nan_to_num(disagreement[number], nan=-1.0), number)))
