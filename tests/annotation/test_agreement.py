"""Agreement by hand, its properties, the consensus of repeats, and tables over episodes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.metrics.agreement import (
    agree,
    boundaries,
    boundary_table,
    compare,
    consensus,
    frame_accuracy,
    match_boundaries,
    measure_table,
    overlap_hits,
    ranked,
)

FPS = 10.0


def cut(edges: list[int], names: str = "abcdef") -> tuple[Segment, ...]:
    """Segments between these frames, named by letters; `.` is nothing."""
    pairs = zip(names, edges, edges[1:], strict=False)
    return tuple(Segment(name, start, stop) for name, start, stop in pairs if name != ".")


def text(annotation: tuple[Segment, ...], length: int) -> list[str]:
    return [f"{boundary.frame} {boundary}" for boundary in boundaries(annotation, length)]


def test_boundaries_by_hand() -> None:
    assert text(cut([0, 30, 60, 100]), 100) == ["30 a → b", "60 b → c"]
    assert text(cut([5, 30, 40, 60, 90], "a.bc"), 100) == [
        "5 (nothing) → a",
        "30 a → (nothing)",
        "40 (nothing) → b",
        "60 b → c",
        "90 c → (nothing)",
    ]
    assert text(cut([0, 30, 100], "aa"), 100) == ["30 a → a"]
    assert text(cut([0, 30, 30, 100], "abc"), 100) == ["30 a → c"]  # b lasts no time
    assert text((), 100) == []


def test_agreement_by_hand() -> None:
    a, b = cut([0, 33, 60, 100]), cut([0, 30, 72, 100])
    found = agree(4, a, b, length=100, fps=FPS)
    assert found.errors == (("a → b", pytest.approx(0.3)), ("b → c", pytest.approx(-1.2)))
    assert found.boundary_hits == (1, 1, 2)  # within 0.5, 1 and 2 s
    assert found.frame_accuracy == pytest.approx(0.85)  # 3 + 12 frames differ
    # a: 30/33 = 0.91; b: 27 of 30..72 = 0.64; c: 28/40 = 0.7
    assert found.segment_hits == (3, 3, 1)
    assert (found.missed, found.extra, found.same_sequence) == (0, 0, True)


def test_a_stage_left_out_is_missed_and_extra() -> None:
    found = agree(0, cut([0, 50, 100], "ac"), cut([0, 30, 60, 100]), length=100, fps=FPS)
    assert (found.errors, found.missed, found.extra, found.same_sequence) == ((), 2, 1, False)
    assert found.frame_accuracy == pytest.approx(0.7)


def test_frames_that_the_reference_leaves_open_do_not_count() -> None:
    assert frame_accuracy(cut([0, 50, 100]), cut([0, 40, 60, 100], "a.b"), 100) == 1.0
    assert frame_accuracy(cut([0, 40, 60, 100], "a.b"), cut([0, 50, 100]), 100) == pytest.approx(0.8)
    assert np.isnan(frame_accuracy(cut([0, 50]), (), 100))


def test_repeated_boundaries_are_matched_in_order_and_near() -> None:
    mine, theirs = (boundaries(cut(edges, "ababa"), 100) for edges in ([0, 10, 20, 50, 70, 100], [0, 12, 22, 55, 71, 100]))
    assert [(one.frame, other.frame) for one, other in match_boundaries(mine, theirs)] == [(10, 12), (20, 22), (50, 55), (70, 71)]
    once = boundaries(cut([0, 52, 100], "ab"), 100)
    assert [(one.frame, other.frame) for one, other in match_boundaries(mine, once)] == [(50, 52)]
    assert match_boundaries(mine, once, within=1.0) == ()


def test_segments_are_counted_once() -> None:
    one, two = (Segment("a", 0, 100),), (Segment("a", 0, 60), Segment("a", 60, 100))
    assert [overlap_hits(two, one, share) for share in (0.3, 0.5, 0.7)] == [1, 1, 0]
    assert [overlap_hits(one, two, share) for share in (0.3, 0.5, 0.7)] == [1, 1, 0]


@st.composite
def annotated(draw) -> tuple[list[int], str]:
    count = draw(st.integers(1, 6))
    inner = draw(st.sets(st.integers(1, 99), min_size=count - 1, max_size=count - 1))
    return [0, *sorted(inner), 100], draw(st.text(alphabet="abc.", min_size=count, max_size=count))


@settings(deadline=None)
@given(annotated(), annotated())
def test_what_always_holds(a, b) -> None:
    one, other = cut(*a), cut(*b)
    there, back, itself = (agree(0, *pair, length=100, fps=FPS) for pair in ((one, other), (other, one), (one, one)))
    assert sorted(abs(error) for _, error in there.errors) == pytest.approx(sorted(abs(error) for _, error in back.errors))
    assert there.boundary_hits == back.boundary_hits
    assert there.missed == back.extra >= 0
    assert list(there.boundary_hits) == sorted(there.boundary_hits)
    assert there.boundary_hits[-1] <= len(there.errors)
    assert list(there.segment_hits) == sorted(there.segment_hits, reverse=True)
    assert (itself.missed, itself.extra) == (0, 0)
    assert not any(error for _, error in itself.errors)
    assert itself.segment_hits == (len(one),) * 3
    if one:
        assert itself.frame_accuracy == 1.0


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), min_size=3, max_size=3, unique=True), min_size=1, max_size=6))
def test_the_consensus_of_one_sequence_is_valid(repeats: list[list[int]]) -> None:
    found = consensus([cut([0, *sorted(inner), 100]) for inner in repeats], length=100, fps=FPS)
    assert [segment.name for segment in found.segments] == list("abcd")
    assert (found.segments[0].start, found.segments[-1].stop) == (0, 100)
    assert all(a.stop == b.start > a.start for a, b in zip(found.segments, found.segments[1:], strict=False))
    assert found.support == found.repeats == len(repeats)
    medians = np.median([sorted(inner) for inner in repeats], axis=0)
    assert [boundary.median_s * FPS for boundary in found.boundaries] == pytest.approx(medians.tolist())
    assert np.abs([s.stop for s in found.segments[:-1]] - medians).max() <= 0.5


def test_a_consensus_by_hand() -> None:
    repeats = [cut([0, 30, 60, 100]), cut([0, 36, 61, 100]), cut([0, 31, 60, 100]), cut([0, 50, 100], "ac")]
    found = consensus(repeats, length=100, fps=FPS)
    assert found.segments == cut([0, 31, 60, 100])
    assert [(str(b.boundary), b.median_s, b.spread_s) for b in found.boundaries] == [
        ("a → b", 3.1, pytest.approx(0.6)),
        ("b → c", 6.0, pytest.approx(0.1)),
    ]
    assert (found.support, found.repeats) == (3, 4)
    # pairs: 12: 6+1, 13: 1, 23: 5+1; with the fourth: 20+10, 14+11, 19+10
    assert found.disagreement == pytest.approx((7 + 1 + 6 + 30 + 25 + 29) / 600)


def test_failed_repeats_disagree_with_all() -> None:
    one = cut([0, 50, 100])
    assert np.isnan(consensus([one], length=100, fps=FPS).disagreement)
    assert consensus([one, one], length=100, fps=FPS).disagreement == 0
    assert consensus([one, one], length=100, fps=FPS, failed=1).disagreement == pytest.approx(2 / 3)
    assert consensus([one], length=100, fps=FPS, failed=2).disagreement == 1
    with pytest.raises(DataError, match="no repeat"):
        consensus([], length=100, fps=FPS, failed=3)


def test_a_tie_goes_to_the_nearest() -> None:
    near, far = cut([0, 50, 100], "ab"), cut([0, 100], "c")
    other = cut([0, 49, 51, 100], "acb")
    assert consensus([far, near, other], length=100, fps=FPS).segments == other  # two frames nearer to `far` than `near` is


def test_gaps_and_lone_stages_in_a_consensus() -> None:
    gaps = [cut([10, 30, 40, 90], "a.b"), cut([12, 30, 44, 90], "a.b")]
    assert consensus(gaps, length=100, fps=FPS).segments == cut([11, 30, 42, 90], "a.b")
    assert consensus([cut([0, 100], "a")] * 2, length=100, fps=FPS).segments == cut([0, 100], "a")
    assert consensus([()], length=100, fps=FPS).segments == ()


def test_who_is_looked_at_first() -> None:
    assert ranked({3: 0.1, 1: 0.5, 2: float("nan"), 0: 0.1}) == (1, 0, 3, 2)


def test_a_table_over_episodes(rng: np.random.Generator) -> None:
    lengths = dict.fromkeys(range(20), 100)
    b = {number: cut([0, 30, 60, 100]) for number in range(20)}
    a = (
        {number: cut([0, 30 + number % 4, 60, 100]) for number in range(19)}
        | {30: cut([0, 100])}
        | {18: cut([0, 30, 100], "ab")}
        | {19: ()}
    )
    found = compare(a, b, lengths=lengths, fps=FPS, rng=rng)
    assert (found.only_a, found.only_b) == ((30,), (19,))
    assert (found.missed, found.extra) == (1, 0)
    error, late = found.boundaries["a → b"]
    assert error.value == late.value == pytest.approx(np.mean([number % 4 for number in range(18)] + [0]) / FPS)
    assert found.boundaries["b → c"][0].value == 0
    total = sum(number % 4 for number in range(18)) / FPS
    assert found.measures["boundary error, s"].value == pytest.approx(total / 37)
    assert found.measures["boundary F1 within 0.5 s"].value == pytest.approx(2 * 37 / (37 + 38))
    assert found.measures["same stages"].value == pytest.approx(18 / 19)
    for estimate in found.measures.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.episodes == 19
    assert [score.episode for score in found.worst()[:3]] == [18, 3, 7]
    columns, rows = measure_table(found)
    assert len(columns) == len(rows[0]) == 3
    assert [row[0] for row in boundary_table(found)[1]] == ["a → b", "b → c"]
    json.dumps(found.to_dict())


def test_the_same_seed_gives_the_same_table() -> None:
    a = {number: cut([0, 30 + number, 100]) for number in range(9)}
    b = {number: cut([0, 33, 100]) for number in range(9)}
    one, two = (compare(a, b, lengths=dict.fromkeys(range(9), 100), fps=FPS, rng=np.random.default_rng(5)) for _ in range(2))
    assert one.measures == two.measures


def test_nothing_in_common_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="in common"):
        compare({1: cut([0, 100])}, {2: cut([0, 100])}, lengths={1: 100, 2: 100}, fps=FPS, rng=rng)
    with pytest.raises(DataError, match="ends at frame 100"):
        compare({1: cut([0, 100])}, {1: cut([0, 90])}, lengths={1: 90}, fps=FPS, rng=rng)
