"""Events of curves: worked by hand, and what must hold for any curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.metrics.events import KINDS, Event, EventRules, count_events, find_events

FPS = 10.0


def curve(*parts: np.ndarray | list[float]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def flat(value: float, frames: int) -> np.ndarray:
    return np.full(frames, value, np.float32)


def rise(start: float, stop: float, frames: int) -> np.ndarray:
    """From start on, stop not included."""
    return np.linspace(start, stop, frames, endpoint=False, dtype=np.float32)


def kinds(value: np.ndarray, **rules: float) -> list[str]:
    return [event.kind for event in find_events(value, FPS, EventRules(**rules))]


def test_a_stall() -> None:
    """50 frames up to 0.5, 30 frames there, 50 more up: frame 47 (0.47) is the first within 0.03 of 0.5, 83 (0.53) beyond the band."""
    value = curve(rise(0, 0.5, 50), flat(0.5, 30), rise(0.5, 1, 50), [1.0])
    (event,) = find_events(value, FPS)
    assert event == Event("stall", 47, 81, 3.4)  # 0.47 to 0.50 are 0.03 apart; 0.51 is further


def test_nothing_happens_for_long_at_the_start() -> None:
    value = curve(flat(0, 25), rise(0, 1, 60), [1.0])
    assert [(e.kind, e.start) for e in find_events(value, FPS)] == [("stall", 0)]


def test_a_tail_after_the_end_is_no_stall() -> None:
    value = curve(rise(0, 1, 100), flat(1, 40))
    (event,) = find_events(value, FPS)
    assert (event.kind, event.start, event.stop) == ("idle_tail", 97, 140)  # 0.97 is the first within 0.03 of 1
    assert event.size == pytest.approx(4.3)


def test_standing_still_below_the_end_is_a_stall_and_never_finished() -> None:
    value = curve(rise(0, 0.5, 50), flat(0.5, 50))
    assert find_events(value, FPS) == [Event("stall", 47, 100, 5.3), Event("never_finished", 50, 100, 0.5)]


def test_a_fall_and_the_way_back() -> None:
    """Up to 0.6 at frame 60, down to 0.3 at 70, up again: back within 0.03 of 0.6 at frame 97 (0.57)."""
    value = curve(rise(0, 0.6, 60), rise(0.6, 0.3, 10), rise(0.3, 1.0, 70), [1.0])
    regression, retry = find_events(value, FPS)
    assert (regression.kind, regression.start, regression.stop) == ("regression", 60, 71)
    assert (retry.kind, retry.start, retry.stop) == ("retry", 60, 98)
    assert regression.size == pytest.approx(0.3) == retry.size


def test_a_fall_begins_at_the_last_frame_of_its_peak() -> None:
    value = curve(rise(0, 0.6, 60), flat(0.6, 15), rise(0.6, 0.2, 10), rise(0.2, 0.5, 30))
    assert [(event.start, event.stop) for event in find_events(value, FPS) if event.kind == "regression"] == [(75, 86)]
    assert "retry" not in kinds(value)


def test_falls_one_after_the_other() -> None:
    """Peaks at 40 and 80; the second fall goes deeper; 0.4 is reached again at 68 (0.37), 0.5 never."""
    value = curve(rise(0, 0.4, 40), rise(0.4, 0.2, 10), rise(0.2, 0.5, 30), rise(0.5, 0.1, 20))
    found = {(event.kind, event.start, event.stop) for event in find_events(value, FPS)}
    assert found == {("regression", 40, 51), ("retry", 40, 68), ("regression", 80, 100), ("never_finished", 80, 100)}


def test_a_jump() -> None:
    value = curve(rise(0, 0.2, 50), flat(0.6, 1), rise(0.6, 1, 60), [1.0])
    (event,) = find_events(value, FPS)
    assert (event.kind, event.start, event.stop) == ("jump", 45, 55)  # from 0.5 s before it to 0.4 s after: it climbs on
    jumps = find_events(curve(flat(0.2, 30), flat(0.6, 30)), FPS)
    assert [(e.start, e.stop, round(e.size, 6)) for e in jumps if e.kind == "jump"] == [(29, 31, 0.4)]


def test_a_jump_over_what_is_unknown_is_none() -> None:
    value = curve(rise(0, 0.2, 50), flat(np.nan, 20), rise(0.6, 1, 60), [1.0])
    assert kinds(value) == []


def test_unknown_frames_break_a_stall() -> None:
    value = curve(rise(0, 0.5, 50), flat(0.5, 13), [np.nan], flat(0.5, 14), rise(0.5, 1, 50), [1.0])
    assert kinds(value) == []
    value[63] = 0.5
    assert kinds(value) == ["stall"]


def test_unknown_ends() -> None:
    assert find_events(flat(np.nan, 50), FPS) == []
    assert find_events(np.zeros(0, np.float32), FPS) == []
    value = curve(rise(0, 1, 50), [1.0], flat(np.nan, 30))
    assert kinds(value) == []  # what is known reached the end
    assert kinds(curve(rise(0, 0.7, 50), flat(np.nan, 30))) == ["never_finished"]


def test_one_frame() -> None:
    assert kinds(flat(1, 1)) == []
    assert find_events(flat(0.25, 1), FPS) == [Event("never_finished", 0, 1, 0.75)]


def test_counts_name_all_kinds() -> None:
    assert count_events([]) == dict.fromkeys(KINDS, 0)
    assert count_events([Event("jump", 0, 1, 0.3), Event("jump", 5, 6, 0.3)])["jump"] == 2


@given(st.integers(2, 4000), st.floats(0.5, 120), st.booleans())
@settings(deadline=None)
def test_a_perfect_line_has_no_event(frames: int, fps: float, half: bool) -> None:
    line = np.linspace(0, 1, frames).astype(np.float32)
    assert find_events(line, fps) == []
    if half and frames > 2:
        line[frames // 2] = np.nan
        assert find_events(line, fps) == []


@given(st.integers(2, 400), st.sampled_from([5.0, 10.0, 30.0]), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_noise_below_the_thresholds_is_no_event(frames: int, fps: float, seed: int) -> None:
    """A line of at least 3 s with noise of +-0.04 never falls by 0.1 or jumps by 0.25 beyond its own rise."""
    rng = np.random.default_rng(seed)
    value = np.linspace(0, 1, frames) + rng.uniform(-0.04, 0.04, frames)
    value = np.clip(value, 0, 1).astype(np.float32)
    found = {event.kind for event in find_events(value, fps)}
    assert not found & {"regression", "retry", "never_finished", "idle_tail"}
    if frames >= 3.5 * fps:
        assert "jump" not in found


wild = st.lists(st.one_of(st.floats(0, 1, width=32), st.just(float("nan"))), min_size=1, max_size=120)


@given(wild, st.sampled_from([1.0, 10.0, 30.0]), st.sampled_from([0.5, 2.0, 4.0]))
@settings(deadline=None)
def test_time_runs_slower(values: list[float], fps: float, slower: float) -> None:
    """Half the frames a second and durations twice as long: the same frames, seconds twice as many."""
    value = np.array(values, np.float32)
    rules = EventRules()
    slow = EventRules(stall_s=rules.stall_s * slower, jump_s=rules.jump_s * slower)
    before, after = find_events(value, fps, rules), find_events(value, fps / slower, slow)
    assert [(e.kind, e.start, e.stop) for e in before] == [(e.kind, e.start, e.stop) for e in after]
    for one, other in zip(before, after, strict=True):
        assert other.size == pytest.approx(one.size * (slower if one.kind in ("stall", "idle_tail") else 1))


@given(wild, st.integers(1, 60), st.sampled_from([5.0, 10.0]))
@settings(deadline=None)
def test_unknown_frames_before_shift_the_falls(values: list[float], before: int, fps: float) -> None:
    def falls(value: np.ndarray) -> list[tuple[str, int, int]]:
        return [(e.kind, e.start, e.stop) for e in find_events(value, fps) if e.kind in ("regression", "retry", "never_finished")]

    value = np.array(values, np.float32)
    shifted = falls(np.concatenate([np.full(before, np.nan, np.float32), value]))
    assert shifted == [(kind, start + before, stop + before) for kind, start, stop in falls(value)]


@given(wild, st.sampled_from([1.0, 10.0]))
@settings(deadline=None)
def test_events_lie_in_the_episode_and_say_what_is_there(values: list[float], fps: float) -> None:
    value = np.array(values, np.float32)
    rules = EventRules()
    for event in find_events(value, fps, rules):
        assert event.kind in KINDS
        assert 0 <= event.start < event.stop <= len(value)
        inside = value[event.start : event.stop]
        if event.kind in ("stall", "idle_tail"):
            assert not np.isnan(inside).any()
            assert inside.max() - inside.min() <= rules.still + 1e-5
            assert event.size == pytest.approx(len(inside) / fps)
        if event.kind == "regression":
            assert inside[0] - inside[-1] == pytest.approx(event.size, abs=1e-5)
            assert event.size >= rules.drop - 1e-5
            assert inside[0] == np.nanmax(inside)
            assert inside[-1] == np.nanmin(inside)
        if event.kind == "jump":
            assert inside[-1] - inside[0] == pytest.approx(event.size, abs=1e-5)
            assert event.size >= rules.jump - 1e-5


def plain_falls(value: np.ndarray, drop: float) -> list[tuple[int, int]]:
    """Frame by frame, no turning points: the definition."""
    found, peak, low, falling = [], 0, 0, False
    for i in range(len(value)):
        if not falling:
            if value[i] >= value[peak]:
                peak = i
            elif value[peak] - value[i] >= drop:
                falling, low = True, i
        elif value[i] < value[low]:
            low = i
        elif value[i] - value[low] >= drop:
            found.append((peak, low + 1))
            falling, peak = False, i
    return [*found, (peak, low + 1)] if falling else found


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80))
@settings(deadline=None)
def test_falls_as_a_plain_loop_finds_them(steps: list[int]) -> None:
    value = np.array(steps, np.float32) / 50  # multiples of 0.02: no doubt about 0.1
    found = [(e.start, e.stop) for e in find_events(value, FPS) if e.kind == "regression"]
    assert found == plain_falls(np.array(steps, float), 5)
