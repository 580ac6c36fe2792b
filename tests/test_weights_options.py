"""The named options beside LeRobot's rule: worked by hand, by a slow reference, and by what they are there for."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import savgol_filter

from milepost.core.errors import DataError
from milepost.weights.config import RabcConfig
from milepost.weights.deltas import deltas, smoothed
from milepost.weights.result import WeightResult, weigh
from milepost.weights.rules import rabc, usual_pace


def one_episode(value: np.ndarray, **options: object) -> WeightResult:
    config = RabcConfig(**options)
    return weigh(np.arange(len(value)), np.zeros(len(value), int), value, config=config, task=np.zeros(len(value), int), fps=10.0)


def episodes(*curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index, episode_index, value) of curves one after another."""
    value = np.concatenate(curves)
    return np.arange(len(value)), np.repeat(np.arange(len(curves)), [len(c) for c in curves]), value


# The end of an episode


def test_a_perfect_demonstration_keeps_its_last_frame() -> None:
    """500 frames, a chunk of 50, kappa 0.01: LeRobot's rule gives the last five frames no full weight, the rescaled horizon all."""
    perfect = np.linspace(0, 1, 500)
    cut, kept = (one_episode(perfect, chunk_size=50, kappa=0.01, end=end).weight for end in ("truncate", "rescale"))
    assert np.all(kept == 1)
    np.testing.assert_array_equal(cut[:494], 1)
    assert np.all(cut[495:] == 0)  # 4 frames from the end 4/499 < 0.01, and the deltas' mean is over two deviations above


def test_the_rescaled_horizon_by_hand() -> None:
    """H 8 over 5 frames: 4, 3, 2 frames left are what they are; with 1 and 0 left the last quarter (2 frames) is looked at."""
    value = np.array([0.0, 0.1, 0.3, 0.6, 0.6])
    np.testing.assert_allclose(deltas(np.arange(5), np.zeros(5, int), value, 8, "rescale"), [1.2, 0.5 * 8 / 3, 1.2, 1.2, 1.2])
    np.testing.assert_allclose(deltas(np.arange(5), np.zeros(5, int), value, 8), [0.6, 0.5, 0.3, 0.0, 0.0])


def test_a_lone_frame_has_no_pace() -> None:
    index, episode, value = episodes(np.array([0.5]), np.linspace(0, 1, 5))
    delta = deltas(index, episode, value, 3, "rescale")
    assert np.isnan(delta[0])
    assert not np.isnan(delta[1:]).any()
    assert deltas(index, episode, value, 3)[0] == 0


@given(
    st.lists(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(1, 15),
    st.data(),
)
def test_deltas_equal_the_slow_rule(curves: list[list[float]], horizon: int, data: st.DataObject) -> None:
    """Gaps, NaN and any order of rows, both ends, against dictionaries frame by frame."""
    index, episode, value = episodes(*map(np.array, curves))
    kept = np.array(data.draw(st.permutations(range(len(index)))))[: data.draw(st.integers(1, len(index)))]
    index, episode, value = index[kept], episode[kept], value[kept]
    known = dict(zip(index.tolist(), value.tolist(), strict=True))
    for end in ("truncate", "rescale"):
        expected = []
        for i, e in zip(index.tolist(), episode.tolist(), strict=True):
            own = index[episode == e]
            first, last = int(own.min()), int(own.max())
            start, scale = i, 1.0
            if end == "rescale" and last - i < horizon:
                start = max(first, min(i, last - -(-horizon // 4)))
                scale = horizon / (last - start) if last > start else float("nan")
            delta = (known.get(min(i + horizon, last), np.nan) - known.get(start, np.nan)) * scale
            expected.append(delta if not np.isnan(known[i]) else np.nan)
        np.testing.assert_allclose(deltas(index, episode, value, horizon, end), expected, atol=1e-12)


# Smoothing


def test_smoothing_is_savitzky_golay(rng: np.random.Generator) -> None:
    value = rng.random(60)
    out = smoothed(np.arange(60), np.zeros(60, int), value, 9)
    np.testing.assert_allclose(out[4:-4], savgol_filter(value, 9, 1)[4:-4], atol=1e-12)
    at_start = [np.polyval(np.polyfit(np.arange(t + 5), value[: t + 5], 1), t) for t in range(4)]
    np.testing.assert_allclose(out[:4], at_start, atol=1e-12)


@given(st.integers(1, 8), st.data())
def test_smoothing_leaves_lines_alone_and_stays_in_its_episode(radius: int, data: st.DataObject) -> None:
    """Two lines of different heights, rows missing and unknown anywhere: each line is what it was, NaN is where it was."""
    index, episode, value = episodes(np.linspace(0, 0.4, 20), 5 - np.linspace(0, 1, 15))
    unknown = data.draw(st.lists(st.integers(0, 34), max_size=10))
    gone = data.draw(st.sets(st.integers(0, 34), max_size=10))
    value = value.copy()
    value[unknown] = np.nan
    kept = np.array([i for i in range(35) if i not in gone])
    np.testing.assert_allclose(smoothed(index[kept], episode[kept], value[kept], 2 * radius + 1), value[kept], atol=1e-9)


def test_smoothing_far_down_a_long_file_is_as_exact(rng: np.random.Generator) -> None:
    """Blocks of episodes and running sums: the last of many episodes comes out as it does alone."""
    lengths = np.full(4000, 300)
    value = rng.random(lengths.sum())
    out = smoothed(np.arange(len(value)), np.repeat(np.arange(len(lengths)), lengths), value, 21)
    alone = smoothed(np.arange(300), np.zeros(300, int), value[-300:], 21)
    np.testing.assert_allclose(out[-300:], alone, atol=1e-10)


def test_smoothing_gives_back_what_noise_costs(rng: np.random.Generator) -> None:
    """Demonstrations that pause: the weight of moving frames less that of pauses. Noise of a tenth of the range takes a quarter of it or
    more, a window of a chunk gives at least four fifths of that back."""
    curves, moving = [], []
    for _ in range(100):
        speed = np.full(80, 1 / 50)
        for start in rng.integers(0, 60, 2):
            speed[start : start + 20] = 0
        curve = np.minimum(np.cumsum(speed), 1)
        curves.append(curve)
        ahead = curve[np.minimum(np.arange(80) + 10, 79)] - curve
        moving.append(np.where(ahead > 0.15, 1, np.where(ahead < 0.01, 0, -1)))
    index, episode, value = episodes(*curves)
    kind = np.concatenate(moving)
    value = 0.25 + value / 2  # with noise it stays within 0 and 1
    noisy = value + rng.normal(0, 0.05, len(value))

    def contrast(curve: np.ndarray, smooth: int) -> float:
        weight = weigh(index, episode, curve, config=RabcConfig(10, 0.05, ramp="linear", smooth=smooth)).weight
        return float(weight[kind == 1].mean() - weight[kind == 0].mean())

    clean, raw, back = contrast(value, 0), contrast(noisy, 0), contrast(noisy, 11)
    assert clean > 0.95
    assert raw < 0.75 * clean
    assert back - raw > 0.8 * (0.85 * clean - raw)
    assert back > 0.78 * clean


# The ramp and kappa


def test_ramps_by_hand() -> None:
    delta = np.array([-0.1, 0.0, 0.02, 0.04, 0.05])
    np.testing.assert_allclose(rabc(delta, 0.0, 1.0, RabcConfig(kappa=0.04, ramp="linear")), [0, 0, 0.5, 1, 1], atol=1e-6)
    np.testing.assert_allclose(rabc(delta, 0.0, 1.0, RabcConfig(kappa=0.04, ramp="hard")), [0, 0, 0, 0, 1])
    np.testing.assert_allclose(rabc(delta, 0.0, 1.0, RabcConfig(kappa=0.04))[:3], [0, 0.5, 0.505], atol=1e-6)
    np.testing.assert_allclose(rabc(np.array([0.0, 1e-9]), 0.0, 1.0, RabcConfig(kappa=0.0, ramp="linear")), [0, 1])


def test_kappa_from_a_duration() -> None:
    """Chunk 50 at 10 frames a second and a target of 20 s: 50 / 200. A demonstration of 19 s is full, one of 21 s is not."""
    for seconds, full in ((19, True), (21, False)):
        weighed = one_episode(np.linspace(0, 1, seconds * 10), chunk_size=50, kappa_duration_s=20.0, ramp="linear", end="rescale")
        assert weighed.one_kappa == 0.25
        assert np.all((weighed.weight == 1) == full)


def test_standing_still_weighs_nothing_and_a_slow_phase_is_not_starved() -> None:
    """Every demonstration is slow near its end, and half of them pause for long: by pace and a linear ramp the pause weighs nothing and the
    slow phase keeps its weight. LeRobot's rule keeps the pause; the hard rule and the plain linear one starve the slow phase."""
    quick, slow = np.linspace(0, 0.8, 40, endpoint=False), np.linspace(0.8, 1.0, 60)
    pausing = np.concatenate([quick[:20], np.full(40, quick[20]), quick[20:], slow])
    index, episode, value = episodes(*[np.concatenate([quick, slow])] * 10, *[pausing] * 10)
    place = np.concatenate([np.tile(np.arange(100), 10), np.tile(np.arange(140) - 1000, 10)])
    pause = (place >= 20 - 1000) & (place < 50 - 1000)
    last = (place >= 60) & (place < 100)

    def means(**options: object) -> tuple[float, float]:
        weight = weigh(index, episode, value, config=RabcConfig(10, **options)).weight
        return float(weight[pause].mean()), float(weight[last].mean())

    paced = means(kappa_pace=0.5, ramp="linear", end="rescale")
    assert paced[0] < 0.01
    assert paced[1] > 0.99
    assert means(kappa=0.1)[0] > 0.15
    assert means(kappa=0.1, ramp="hard", end="rescale")[1] == 0
    assert means(kappa=0.1, ramp="linear", end="rescale")[1] < 0.4


def test_the_usual_pace_does_not_hear_pauses() -> None:
    delta = np.concatenate([np.full(10, 0.1), np.zeros(500), np.full(4, 0.3)])
    progress = np.full(len(delta), 0.5)
    np.testing.assert_allclose(usual_pace(delta, progress), 0.3, rtol=0.03)  # 1.2 done at 0.3, 1.0 at 0.1
    np.testing.assert_allclose(usual_pace(delta[:-1], progress[:-1]), 0.1, rtol=0.03)  # 0.9 at 0.3
    assert not usual_pace(np.zeros(3), np.zeros(3)).any()
    assert not usual_pace(np.full(3, np.nan), np.full(3, np.nan)).any()


def test_statistics_per_task_are_those_of_each_task_alone(rng: np.random.Generator) -> None:
    """A quick task and a ten times slower one, mixed: by task each gets what it would get in a file of its own."""
    quick, slow = (np.minimum(1, np.cumsum(rng.random((20, n)), axis=1) * 2 / n) for n in (30, 300))
    index, episode, value = episodes(*quick, *slow)
    task = (episode >= 20).astype(int)
    for options in ({}, {"kappa": 0.2}, {"kappa_pace": 0.5, "ramp": "linear"}):
        config = RabcConfig(10, statistics="task", **options)
        weighed = weigh(index, episode, value, config=config, task=task)
        alone = dataclasses.replace(config, statistics="dataset")
        for which in (0, 1):
            rows = task == which
            own = weigh(index[rows], episode[rows], value[rows], config=alone)
            np.testing.assert_array_equal(weighed.weight[rows], own.weight)


def test_a_slow_task_among_quick_ones_is_not_starved_by_task(rng: np.random.Generator) -> None:
    quick, slow = (np.minimum(1, np.cumsum(rng.random((number, n)), axis=1) * 2 / n) for number, n in ((200, 30), (4, 300)))
    index, episode, value = episodes(*quick, *slow)
    task = (episode >= 200).astype(int)
    for by, low, high in (("dataset", 0.0, 0.2), ("task", 0.8, 1.0)):
        config = RabcConfig(10, kappa_pace=0.5, ramp="linear", end="rescale", statistics=by)
        assert low <= weigh(index, episode, value, config=config, task=task).weight[task == 1].mean() <= high


# Other rules, floor, filters


def test_floor_lifts_the_known_and_not_the_filtered() -> None:
    index, episode, value = episodes(np.linspace(1, 0, 10), np.full(3, np.nan), np.linspace(0, 1, 30))
    config = RabcConfig(2, floor=0.2, fallback_weight=0.05, max_duration_s=2.0)
    weighed = weigh(index, episode, value, config=config, fps=10.0)
    np.testing.assert_array_equal(weighed.filtered, [2])
    assert weighed.weight[:9].max() == pytest.approx(0.2)
    np.testing.assert_allclose(weighed.weight[10:13], 0.05)
    assert not weighed.weight[13:].any()


def test_filters_are_as_if_the_episodes_were_not_there(rng: np.random.Generator) -> None:
    good, long, unfinished = np.linspace(0, 1, 20), np.linspace(0, 1, 60), np.linspace(0, 0.4, 20)
    index, episode, value = episodes(good, long, good**2, unfinished, np.array([0.1, 0.9, np.nan]))
    config = RabcConfig(5, kappa_pace=0.5, max_duration_s=3.0, min_final=0.8)
    weighed = weigh(index, episode, value, config=config, fps=10.0)
    np.testing.assert_array_equal(weighed.filtered, [1, 3])
    kept = ~np.isin(episode, [1, 3])
    alone = weigh(index[kept], episode[kept], value[kept], config=RabcConfig(5, kappa_pace=0.5))
    np.testing.assert_array_equal(weighed.weight[kept], alone.weight)
    assert not weighed.weight[~kept].any()
    assert (weighed.delta_mean, weighed.delta_std) == (alone.delta_mean, alone.delta_std)
    only = weigh(index, episode, value, config=RabcConfig(rule="uniform", min_final=0.8))
    assert set(only.weight[episode == 3]) == {0.0}
    assert np.all(only.weight[(episode != 3) & ~np.isnan(value)] == 1)


# The preset


def test_the_preset_is_the_studys_setting_and_other_options_take_its_place() -> None:
    """The four numbers of docs/rabc_study.md ("Weights"); a choice of kappa is a choice of kappa, whichever way it is made."""
    study = RabcConfig.preset("study", chunk_size=6)
    assert study == RabcConfig(6, ramp="linear", kappa_pace=1.0, end="rescale", smooth=5)
    assert RabcConfig.preset("study", smooth=0, ramp="hard") == RabcConfig(ramp="hard", kappa_pace=1.0, end="rescale")
    assert RabcConfig.preset("study", kappa=0.2) == RabcConfig(kappa=0.2, ramp="linear", end="rescale", smooth=5)
    assert RabcConfig.preset("study", kappa_duration_s=9.0).kappa_pace is None
    with pytest.raises(ValueError, match="no preset 'best'; there is: study"):
        RabcConfig.preset("best")


# What is refused


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kappa": -0.1}, "kappa must be"),
        ({"kappa": float("nan")}, "finite"),
        ({"smooth": 4}, "odd"),
        ({"smooth": 1}, "odd"),
        ({"kappa_duration_s": 0.0}, "above 0"),
        ({"floor": 1.5}, "highest weight"),
        ({"kappa": 0.1, "kappa_pace": 0.5}, "kappa, kappa_pace"),
        ({"kappa_duration_s": 9.0, "kappa_pace": 0.5}, "one kappa"),
        ({"rule": "uniform", "end": "rescale"}, "rule uniform, end"),
        ({"rule": "uniform", "smooth": 5}, "smooth"),
        ({"ramp": "hard", "statistics": "task"}, "statistics"),
    ],
)
def test_options_that_cannot_be_or_would_do_nothing_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        RabcConfig(**options)


def test_what_an_option_needs_is_asked_for() -> None:
    index, episode, value = episodes(np.linspace(0, 1, 9))
    with pytest.raises(DataError, match="give the dataset"):
        weigh(index, episode, value, config=RabcConfig(statistics="task"))
    with pytest.raises(DataError, match="fps"):
        weigh(index, episode, value, config=RabcConfig(max_duration_s=1.0))


def test_an_episode_in_pieces_is_refused() -> None:
    with pytest.raises(DataError, match=r"episode 0 .* several pieces"):
        deltas(np.arange(6), np.array([0, 0, 1, 1, 0, 0]), np.zeros(6), 1)


CHOICES = {
    "rule": ("rabc", "uniform"),
    "end": ("truncate", "rescale"),
    "ramp": ("soft", "linear", "hard"),
    "statistics": ("dataset", "task"),
    "kappa": ({}, {"kappa": 0.2}, {"kappa_duration_s": 2.0}, {"kappa_pace": 0.5}),
    "more": ({}, {"smooth": 5, "floor": 0.1}, {"max_duration_s": 3.0, "min_final": 0.3}),
}


@pytest.mark.parametrize(("seed", "chunk"), [(0, 1), (1, 8), (2, 60)])
def test_every_combination_is_defined_or_refused(seed: int, chunk: int) -> None:
    """288 combinations on random rows with gaps, unknowns, lone frames and an unknown episode: weights that are numbers from 0 to the
    largest there is, 1, in any order of rows, or a refusal in words."""
    rng = np.random.default_rng(seed)
    index, episode, value = episodes(*[rng.random(n) for n in (30, 1, 12, 40, 2)], np.full(4, np.nan))
    value[rng.random(len(value)) < 0.1] = np.nan
    kept = np.sort(rng.choice(len(index), 70, replace=False))
    index, episode, value = index[kept], episode[kept], value[kept]
    task, order = episode % 2, rng.permutation(70)
    made = 0
    for rule, end, ramp, statistics, kappa, more in itertools.product(*CHOICES.values()):
        try:
            config = RabcConfig(chunk, rule=rule, end=end, ramp=ramp, statistics=statistics, fallback_weight=0.7, **kappa, **more)
            weighed = weigh(index, episode, value, config=config, task=task, fps=10.0)
        except ValueError:
            continue
        made += 1
        assert weighed.weight.dtype == np.float32
        assert np.all((weighed.weight >= 0) & (weighed.weight <= 1))
        unknown = np.isnan(weighed.delta) & ~np.isin(episode, weighed.filtered)
        np.testing.assert_array_equal(weighed.weight[unknown], np.float32(0.7))
        mixed = weigh(index[order], episode[order], value[order], config=config, task=task[order], fps=10.0)
        np.testing.assert_array_equal(mixed.weight, weighed.weight[order])
    assert made == 110  # rabc: 144 less 36 without a use for statistics by task; uniform: plain and with filters


def test_constant_progress_is_lerobots_number() -> None:
    """Deltas of 0 with a deviation of epsilon: 2 eps / (4 eps + eps) = 0.4 for every frame; without the soft ramp nothing."""
    np.testing.assert_allclose(one_episode(np.full(20, 0.5)).weight, 0.4, atol=1e-6)
    assert not one_episode(np.full(20, 0.5), ramp="linear").weight.any()


def test_a_chunk_longer_than_every_episode_is_what_is_left() -> None:
    value = np.linspace(0, 1, 11)
    np.testing.assert_allclose(one_episode(value, chunk_size=1000).delta, 1 - value)
