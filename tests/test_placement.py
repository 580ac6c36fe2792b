"""Which picture belongs to which row, worked by hand: parts of a film that add up, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milepost.core.errors import UnreadableError
from milepost.datasets.placement import Part, Placed, offsets, place, unsteady

FPS = 10.0


def parts(*lengths: int, shift: float = 0.0, drift: float = 0.0) -> tuple[Part, ...]:
    """Episodes one after another. shift, drift: frames by which meta/'s times are off, all of them and more each time."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    off = shift + drift * np.arange(len(starts))
    times = (starts + off) / FPS
    return tuple(Part(i, float(times[i]), float(times[i + 1]), length, follows=i > 0) for i, length in enumerate(lengths))


def firsts(found: dict[int, Placed]) -> list[int | None]:
    return [None if one.fault else one.first for one in found.values()]


def test_a_film_of_as_many_pictures_as_rows_is_counted() -> None:
    assert firsts(place(parts(4, 3, 5), 12, FPS, FPS)) == [0, 4, 7]
    assert firsts(place(parts(4, 3, 5), 12, FPS, FPS, 1.4)) == [0, 4, 7], "time starts at the film's first picture"
    assert firsts(place(parts(4, 3, 5, shift=14), 12, FPS, FPS, 1.4)) == [0, 4, 7], "or meta/ counts from zero as the film does"


@pytest.mark.parametrize("drift", [0.12, 0.4, -0.4, 0.5, 1.0, -1.0])
def test_of_a_drift_only_what_counting_confirms_is_read(drift: float) -> None:
    assert firsts(place(parts(4, 3, 5, 6, drift=drift), 18, FPS, FPS)) == [0, None, None, None]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.floats(-0.9, 0.9), st.integers(-3, 3))
@example([1, 2, 2], 0.5, 1)
@example([2, 1], 0.5, 1)
@example([3, 1], 0.9 - 1e-16, 1)  # one picture is no deleted episode, however short the episodes are
def test_no_part_is_ever_placed_elsewhere(lengths: list[int], drift: float, more: int) -> None:
    """Whatever meta/'s times are off by, and however many pictures the film has: the right place or none."""
    right = np.concatenate([[0], np.cumsum(lengths)])[:-1].tolist()
    placed = place(parts(*lengths, drift=drift), max(1, sum(lengths) + more), FPS, FPS)
    whole = [one.count == length for one, length in zip(placed.values(), lengths, strict=True)]  # else `offsets` refuses it
    found = [first if fits else None for first, fits in zip(firsts(placed), whole, strict=True)]
    assert all(first in (None, wanted) for first, wanted in zip(found, right, strict=True))
    assert more == 0 or found == [None] * len(lengths)


def test_a_deleted_episode_leaves_a_hole_that_meta_accounts_for() -> None:
    first, _, last = parts(4, 3, 5)
    assert firsts(place((first, last), 12, FPS, FPS)) == [0, 7]
    assert firsts(place((first, last), 13, FPS, FPS)) == [None, None], "one picture more than meta/ accounts for"
    first, second, _ = parts(4, 3, 5)
    assert firsts(place((first, second), 12, FPS, FPS)) == [None, None]
    assert firsts(place((first, second), 12, FPS, FPS, 0.0, (0, 5))) == [0, 4], "five rows are there that no episode has"


def test_a_part_without_a_place_does_not_spoil_the_others() -> None:
    first, second, last = parts(4, 3, 5)
    adrift = Part(1, None, None, 3)
    assert firsts(place((first, adrift, last), 12, FPS, FPS)) == [0, None, 7]
    assert firsts(place((first, second, Part(2, None, None, 5)), 12, FPS, FPS)) == [0, 4, None]


def test_parts_as_long_as_meta_says_and_not_as_their_rows() -> None:
    """An episode whose film has a picture more, and meta/ says so: the others are certain, and its own rows' times may tell."""
    first, second, last = parts(4, 4, 5)
    found = place((first, Part(1, second.start_s, second.stop_s, 3), last), 13, FPS, FPS)
    assert firsts(found) == [0, 4, 8]
    assert found[1].count == 4
    with pytest.raises(UnreadableError, match="holds 4 pictures for 3 rows"):
        offsets(np.arange(3) / FPS, found[1], FPS)
    inside, oddness = offsets(np.array([0.0, 0.1, 0.3]), found[1], FPS)  # the row at 0.2 s was lost
    assert (inside.tolist(), oddness) == ([0, 1, 3], "")


@pytest.mark.parametrize("rate", [29.97, 30.0, 10.0])
def test_a_film_alone_is_its_episodes(rate: float) -> None:
    assert place((Part(7, 123.4, 125.0, 6),), 6, 30.0, rate)[7].first == 0


def test_a_film_with_several_pictures_a_row() -> None:
    found = place((Part(0, 0.0, None, 4),), 12, FPS, 30.0)[0]
    assert (found.first, found.count, found.step) == (0, 4, 3)


def test_inside_a_part_position_decides_where_stamps_cannot() -> None:
    ten = Placed(0, 10, alone=True)
    assert offsets(np.arange(10) / FPS + 0.03, ten, FPS)[0].tolist() == list(range(10))
    late = offsets((np.arange(10) + 1) / FPS, ten, FPS)
    assert late[0].tolist() == list(range(10))
    assert "position decides" in late[1]
    assert "position decides" in offsets(np.cumsum(np.full(10, 0.137)), ten, FPS)[1]
    with pytest.raises(UnreadableError, match=r"rows are stamped 0\.2000 to 1\.1000 s"):
        offsets((np.arange(10) + 2) / FPS, Placed(0, 10), FPS)
    with pytest.raises(UnreadableError, match="shorter than its rows: it holds 9 pictures for 10 rows"):
        offsets(np.arange(10) / FPS, Placed(0, 9, alone=True), FPS)


def test_a_film_of_several_episodes_at_twice_the_rate_is_read_at_every_second_picture() -> None:
    """Pictures 2k and 2k + 1 are one moment: episode 1 begins at picture 80, not 40."""
    parts = (Part(0, 0.0, 40 / 30, 40), Part(1, 40 / 30, 73 / 30, 33), Part(2, 73 / 30, 123 / 30, 50))
    placed = place(parts, 246, 30.0, 60.0)
    assert [(placed[n].first * placed[n].step, placed[n].step, placed[n].count) for n in range(3)] == [
        (0, 2, 40),
        (80, 2, 33),
        (146, 2, 50),
    ]


@pytest.mark.parametrize(
    ("slots", "refused"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], False),
        ([0, 1, 2, 3, 5, 6, 6.5, 7, 8], True),  # slot 4 is missing, and there is one too many at 6.5
        ([0, 1, 2, 2.1, 4, 5, 6, 7, 8], True),  # the other way round
        ([0, 1.3, 1.8, 3.2, 4, 4.7, 6.1, 7, 8], False),  # jitter
        ([0, 1, 2, 3, 7, 8, 9, 10, 11], False),  # a pause: the camera slept, and so did the rows
        ([0, 2, 4, 6, 8, 10, 12, 14, 16], False),  # another rate throughout
        ([5, 6, 7, 8, 9, 10, 11, 12, 13], False),  # a late start
        ([0, 1], False),
    ],
)
def test_missing_and_superfluous_pictures_do_not_cancel(slots: list[float], refused: bool) -> None:
    assert bool(unsteady(np.array(slots, float) / 10, 10.0)) == refused
