"""Measures how far two annotations of an episode agree, joins repeats into a consensus, and makes tables over episodes. numpy only.

A boundary is the frame at which one stage gives way to another, or to no stage. The episode's own ends are not boundaries. Boundaries of
two annotations are matched in order of time if they lie between the same two stages. A boundary without a match counts as missed or extra;
it gets no error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from milepost.core import DataError, Segment
from milepost.metrics.evaluation import Estimate, mean_estimate
from milepost.metrics.scores import interval

TOLERANCES_S = (0.5, 1.0, 2.0)
OVERLAPS = (0.25, 0.5, 0.75)
Annotation = tuple[Segment, ...]


@dataclass(frozen=True)
class Boundary:
    """The frame at which stage `before` gives way to stage `after`. None stands for no stage."""

    frame: int
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.before or '(nothing)'} → {self.after or '(nothing)'}"


def frame_names(annotation: Sequence[Segment], length: int) -> np.ndarray:
    """Returns the stage name of each frame, (T,) object, None where there is no stage. Where segments overlap, the later one counts."""
    names = np.full(length, None, dtype=object)
    for segment in annotation:
        names[segment.start : segment.stop] = segment.name
    return names


def boundaries(annotation: Sequence[Segment], length: int) -> tuple[Boundary, ...]:
    """Returns where the stage changes inside the episode, in order. Two segments of one stage have a boundary between them too."""
    out: list[Boundary] = []
    at, last = 0, None
    for segment in sorted((s for s in annotation if s.stop > s.start), key=lambda s: (s.start, s.stop)):
        if segment.start > at:
            out += [Boundary(at, last, None), Boundary(segment.start, None, segment.name)]
        else:
            out.append(Boundary(segment.start, last, segment.name))
        at, last = segment.stop, segment.name
    return tuple(boundary for boundary in [*out, Boundary(at, last, None)] if 0 < boundary.frame < length)


def match_boundaries(
    a: Sequence[Boundary], b: Sequence[Boundary], *, within: float = float("inf")
) -> tuple[tuple[Boundary, Boundary], ...]:
    """Returns pairs of boundaries between the same two stages, in order in both annotations and at most `within` frames apart.

    The number of pairs is as large as possible; of several such matchings the one with the smallest sum of distances is returned.
    """
    # Dynamic programming as for the longest common subsequence; it costs len(a) len(b) steps, and episodes have tens of boundaries.
    best = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    unit = (1.0 + max([boundary.frame for boundary in (*a, *b)], default=0)) * (1 + min(len(a), len(b)))
    for i, boundary_a in enumerate(a):
        for j, boundary_b in enumerate(b):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j])
            distance = abs(boundary_a.frame - boundary_b.frame)
            if boundary_a.before == boundary_b.before and boundary_a.after == boundary_b.after and distance <= within:
                value = best[i][j] + 1 - distance / unit  # all distances together count less than one pair
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
    """Returns how many segments of a have an IoU of at least `overlap` with one of b of the same name; each of b counts once (F1@IoU)."""
    free = [segment for segment in b if segment.stop > segment.start]
    hits = 0
    for segment in a:
        iou, nearest = max(((_iou(segment, other), i) for i, other in enumerate(free) if other.name == segment.name), default=(0.0, -1))
        if nearest >= 0 and iou >= overlap > 0:
            hits += 1
            free.pop(nearest)
    return hits


def _iou(a: Segment, b: Segment) -> float:
    common = max(0, min(a.stop, b.stop) - max(a.start, b.start))
    return common / (a.stop - a.start + b.stop - b.start - common) if common else 0.0


def frame_accuracy(a: Sequence[Segment], b: Sequence[Segment], length: int) -> float:
    """Returns the proportion of the frames annotated in b that have the same stage in a; NaN if b annotates no frame."""
    names_a, names_b = frame_names(a, length), frame_names(b, length)
    is_annotated = np.array([name is not None for name in names_b])
    return float(np.mean(names_a[is_annotated] == names_b[is_annotated])) if is_annotated.any() else float("nan")


@dataclass(frozen=True)
class EpisodeAgreement:
    """The agreement of a with b in one episode.

    errors: (name of the boundary, a - b in seconds) of each matched pair. boundary_hits, segment_hits: how many agree at each tolerance
    and overlap.
    """

    episode: int
    errors: tuple[tuple[str, float], ...]
    boundaries_a: int
    boundaries_b: int
    boundary_hits: tuple[int, ...]
    segments_a: int
    segments_b: int
    segment_hits: tuple[int, ...]
    frame_accuracy: float
    same_sequence: bool

    @property
    def missed(self) -> int:
        return self.boundaries_b - len(self.errors)

    @property
    def extra(self) -> int:
        return self.boundaries_a - len(self.errors)


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
    """Compares annotation a with b, the reference. Raises DataError if a segment ends after the episode."""
    for segment in (*a, *b):
        if segment.stop > length:
            raise DataError(f"episode {episode}: segment '{segment.name}' ends at frame {segment.stop}, the episode has {length}")
    segments_a, segments_b = ([s for s in each if s.stop > s.start] for each in (a, b))
    boundaries_a, boundaries_b = boundaries(a, length), boundaries(b, length)
    return EpisodeAgreement(
        episode=episode,
        errors=tuple(
            (str(boundary_b), (boundary_a.frame - boundary_b.frame) / fps)
            for boundary_a, boundary_b in match_boundaries(boundaries_a, boundaries_b)
        ),
        boundaries_a=len(boundaries_a),
        boundaries_b=len(boundaries_b),
        boundary_hits=tuple(len(match_boundaries(boundaries_a, boundaries_b, within=tolerance * fps + 1e-9)) for tolerance in tolerances_s),
        segments_a=len(segments_a),
        segments_b=len(segments_b),
        segment_hits=tuple(overlap_hits(segments_a, segments_b, overlap) for overlap in overlaps),
        frame_accuracy=frame_accuracy(a, b, length),
        same_sequence=[s.name for s in segments_a] == [s.name for s in segments_b],
    )


@dataclass(frozen=True)
class Comparison:
    """The agreement of a with b over the episodes that both annotate.

    measures: name -> estimate. boundaries: name -> (absolute error, signed error) in seconds. only_a, only_b: episodes that only one of
    them annotates; no number counts them.
    """

    measures: Mapping[str, Estimate]
    boundaries: Mapping[str, tuple[Estimate, Estimate]]
    missed: int
    extra: int
    episodes: tuple[EpisodeAgreement, ...]
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]

    def worst(self) -> tuple[EpisodeAgreement, ...]:
        """Returns the episodes by frame accuracy, lowest first; of equal ones the larger sum of boundary errors comes first."""
        return tuple(
            sorted(self.episodes, key=lambda e: (np.nan_to_num(e.frame_accuracy, nan=2.0), -sum(abs(s) for _, s in e.errors), e.episode))
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison in JSON's types, with the keys that other programs read already: they say "border"."""
        content = {_json_key(name): value for name, value in asdict(self).items()}
        content["measures"] = {_json_key(name): value for name, value in content["measures"].items()}
        content["episodes"] = [{_json_key(name): value for name, value in episode.items()} for episode in content["episodes"]]
        return content


def _json_key(name: str) -> str:
    # Programs read these keys, so they stay; a stage's name is never passed through here.
    return name.replace("boundaries", "borders").replace("boundary", "border")


def compare(
    a: Mapping[int, Annotation], b: Mapping[int, Annotation], *, lengths: Mapping[int, int], fps: float, rng: np.random.Generator
) -> Comparison:
    """Compares the episodes that both annotate; b is the reference. Intervals are 95 % bootstrap intervals over episodes.

    Raises DataError if no episode is annotated in both.
    """
    common = sorted(episode_index for episode_index in set(a) & set(b) if a[episode_index] and b[episode_index])
    if not common:
        raise DataError("the two annotations have no annotated episode in common; check that they are of the same dataset and head")
    scores = tuple(
        agree(episode_index, a[episode_index], b[episode_index], length=lengths[episode_index], fps=fps) for episode_index in common
    )
    errors_by_name: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        for name, error in score.errors:
            errors_by_name[name].append(error)
    return Comparison(
        measures=_measures(scores, rng),
        boundaries={
            name: (mean_estimate(np.abs(errors).tolist(), rng), mean_estimate(errors, rng)) for name, errors in errors_by_name.items()
        },
        missed=sum(score.missed for score in scores),
        extra=sum(score.extra for score in scores),
        episodes=scores,
        only_a=tuple(sorted(episode_index for episode_index in a if a[episode_index] and episode_index not in common)),
        only_b=tuple(sorted(episode_index for episode_index in b if b[episode_index] and episode_index not in common)),
    )


def _measures(scores: Sequence[EpisodeAgreement], rng: np.random.Generator) -> dict[str, Estimate]:
    count_boundaries = [score.boundaries_a + score.boundaries_b for score in scores]
    count_segments = [score.segments_a + score.segments_b for score in scores]
    errors = [sum(abs(seconds) for _, seconds in score.errors) for score in scores]
    measures = {
        "boundary error, s": _ratio(errors, [len(score.errors) for score in scores], rng),
        "frame accuracy": mean_estimate([score.frame_accuracy for score in scores], rng),
        "same stages": mean_estimate([float(score.same_sequence) for score in scores], rng),
    }
    for i, tolerance in enumerate(TOLERANCES_S):
        measures[f"boundary F1 within {tolerance:g} s"] = _ratio([2 * score.boundary_hits[i] for score in scores], count_boundaries, rng)
    for i, overlap in enumerate(OVERLAPS):
        measures[f"segment F1 at overlap {overlap:g}"] = _ratio([2 * score.segment_hits[i] for score in scores], count_segments, rng)
    return measures


def _ratio(top: Sequence[float | int], bottom: Sequence[int], rng: np.random.Generator) -> Estimate:
    """Returns the ratio of two sums over episodes, NaN if the divisor is 0. An episode with nothing in the divisor is not counted."""
    pairs = np.array([pair for pair in zip(top, bottom, strict=True) if pair[1]], dtype=float).reshape(-1, 2)
    if not len(pairs):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)

    def ratio(rows: np.ndarray) -> float:
        top_sum, bottom_sum = pairs[rows.astype(int)].sum(axis=0)
        return float(top_sum / bottom_sum)

    all_rows = np.arange(len(pairs))
    low, high = interval(ratio, all_rows, rng=rng)
    return Estimate(ratio(all_rows), low, high, len(pairs))


def measure_table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows) with one row for each measure."""
    return ("", "mean [95 %]", "episodes"), [(name, estimate, estimate.episodes) for name, estimate in comparison.measures.items()]


def boundary_table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Returns (columns, rows) with one row for each boundary; a signed error above 0 means that a is later than b."""
    rows: list[tuple[object, ...]] = [
        (name, error, signed_error, error.episodes) for name, (error, signed_error) in comparison.boundaries.items()
    ]
    return ("boundary", "error, s", "late by, s", "times"), rows


@dataclass(frozen=True)
class MedianBoundary:
    """A boundary of the consensus: its median and its range over the repeats that have the same sequence of stages."""

    boundary: Boundary
    median_s: float
    spread_s: float


@dataclass(frozen=True)
class Consensus:
    """The annotation that repeats have in common. segments: the most common sequence of stages, cut at the median boundaries.

    support: how many of the `repeats` have that sequence. disagreement: the proportion of frames, in [0, 1], on which two repeats differ,
    as a mean over all pairs; a failed repeat differs on every frame. It is NaN for a single repeat.
    """

    segments: Annotation
    boundaries: tuple[MedianBoundary, ...]
    support: int
    repeats: int
    disagreement: float


def consensus(annotations: Sequence[Annotation], *, length: int, fps: float, failed: int = 0) -> Consensus:
    """Returns one annotation for several repeats of one episode.

    If several sequences of stages are equally common, the one nearest to all repeats is taken. failed: how many repeats gave no
    annotation. Raises DataError if all failed.
    """
    if not annotations:
        raise DataError("no repeat of this episode gave an annotation")
    frame_stages = [frame_names(annotation, length) for annotation in annotations]
    repeats = len(annotations) + failed
    pairs = [float(np.mean(frame_stages[i] != frame_stages[j])) for i, j in combinations(range(len(frame_stages)), 2)]
    failed_pairs = len(list(combinations(range(repeats), 2))) - len(pairs)
    disagreement = (sum(pairs) + failed_pairs) / (len(pairs) + failed_pairs) if repeats > 1 else float("nan")
    cleaned = [[s for s in sorted(each, key=lambda s: (s.start, s.stop)) if s.stop > s.start] for each in annotations]
    keys = [_sequence(each, length) for each in cleaned]
    counts = Counter(keys)
    nearness = {
        key: np.mean([np.mean(frame_stages[i] == other) for i, k in enumerate(keys) if k == key for other in frame_stages])
        for key in counts
    }
    sequence = max(counts, key=lambda key: (counts[key], nearness[key]))
    members = [each for each, key in zip(cleaned, keys, strict=True) if key == sequence]
    boundary_lists = [boundaries(each, length) for each in members]
    medians = tuple(_agreed([each[i] for each in boundary_lists], fps) for i in range(len(boundary_lists[0])))
    return Consensus(_between([each.boundary for each in medians], members[0], length), medians, len(members), repeats, disagreement)


def _sequence(annotation: Sequence[Segment], length: int) -> tuple[object, ...]:
    first = annotation[0].name if annotation else None
    return (first, *((boundary.before, boundary.after) for boundary in boundaries(annotation, length)))


def _agreed(boundaries_of_repeats: Sequence[Boundary], fps: float) -> MedianBoundary:
    frames = np.array([boundary.frame for boundary in boundaries_of_repeats])
    median = float(np.median(frames))
    frame = int(np.floor(median + 0.5))  # not round(), which rounds to even: two boundaries a frame apart must stay apart
    return MedianBoundary(
        Boundary(frame, boundaries_of_repeats[0].before, boundaries_of_repeats[0].after), median / fps, float(np.ptp(frames)) / fps
    )


def _between(boundaries: Sequence[Boundary], member: Sequence[Segment], length: int) -> Annotation:
    """Returns the segments between these boundaries. member: one of the repeats; it names the stages where there is no boundary."""
    if not boundaries:
        return tuple(Segment(segment.name, 0, length) for segment in member)
    names = [boundaries[0].before, *(boundary.after for boundary in boundaries)]
    edges = [0, *(boundary.frame for boundary in boundaries), length]
    return tuple(Segment(name, a, b) for name, (a, b) in zip(names, pairwise(edges), strict=True) if name is not None)


def ranked(disagreement: Mapping[int, float]) -> tuple[int, ...]:
    """Returns the episodes by disagreement, highest first; those with a single repeat (NaN) come last."""
    return tuple(sorted(disagreement, key=lambda episode_index: (-np.nan_to_num(disagreement[episode_index], nan=-1.0), episode_index)))
