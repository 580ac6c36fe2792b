"""The audit tells a reward from a clock: on models whose nature is known, and on copies whose every frame is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from milepost.core import DataError, EditedFrames, Episode, Progress, UnreadableError, reordered
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import CONTROLS, copies, steady_channels, time_channels
from milepost.metrics.controls import orders
from milepost.models import ElapsedModel
from milepost.progress import AuditConfig, audit
from milepost.progress.labelling import require_model
from milepost.testing import CAMERA, ConstantModel, ListDataset, dot_episodes, tiny_sarm
from milepost.testing.dots import PLACES


def along(places: np.ndarray) -> np.ndarray:
    """How far along the three legs each place is, in [0, 1]: the nearest point of the path."""
    best = np.full(len(places), np.inf)
    value = np.zeros(len(places))
    for leg in range(3):
        start, way = PLACES[leg], PLACES[leg + 1] - PLACES[leg]
        part = np.clip(((places - start) @ way) / (way @ way), 0, 1)
        distance = np.linalg.norm(places - start - part[:, None] * way, axis=1)
        value = np.where(distance < best, (leg + part) / 3, value)
        best = np.minimum(best, distance)
    return value


def seen(episode: Episode) -> np.ndarray:
    """Where the dot is, in the image: the only bright pixels, in any light."""
    red, green, blue = np.moveaxis(episode.camera(CAMERA)[np.arange(episode.length)], -1, 0)
    bright = np.maximum(np.maximum(red, green), blue).reshape(episode.length, -1).astype(np.float32)
    mask = (bright > (bright.min(axis=1, keepdims=True) + bright.max(axis=1, keepdims=True)) / 2).astype(np.float32)
    y, x = np.mgrid[:32, :32]
    return mask @ np.stack([x.ravel(), y.ravel()], axis=1) / mask.sum(axis=1, keepdims=True)


class Model:
    """A model that is a function of the episode."""

    def __init__(self, of) -> None:
        self.of = of

    def predict(self, episode: Episode) -> Progress:
        return Progress(episode.index, np.clip(self.of(episode), 0, 1).astype(np.float32))


def colour(episode: Episode) -> int:
    image = episode.camera(CAMERA)[np.array([0])][0]
    return int(np.argmax(image.reshape(-1, 3).max(axis=0)))


def with_task(episode: Episode) -> np.ndarray:
    """An oracle that also reads the instruction: 0 where the dot has another colour."""
    return along(seen(episode)) * (episode.task.endswith(str(colour(episode))))


def counter(episode: Episode) -> np.ndarray:
    return np.minimum(np.arange(episode.length) / 30, 1)


def neighbours(episode: Episode) -> np.ndarray:
    """Reads the images, but only where the dot was near a moment ago: among shuffled frames it is lost."""
    places = seen(episode)
    jump = np.linalg.norm(np.diff(places, axis=0, prepend=places[:1]), axis=1)
    return np.where(jump < 3, along(places), 0.5)


def has_moved(episode: Episode) -> np.ndarray:
    """Says no more than that the dot is not where it was first: in any order."""
    places = seen(episode)
    return 0.6 * np.minimum(np.linalg.norm(places - places[0], axis=1) / 3, 1)


def hesitant(episodes: list[Episode], seed: int = 0) -> list[Episode]:
    """The same episodes by hands that stop now and then, each at its own places: no two have the same pace."""
    out = []
    for episode in episodes:
        rng = np.random.default_rng([seed, episode.index])
        pauses = np.ones(episode.length, dtype=int)
        pauses[rng.choice(episode.length, 2, replace=False)] += rng.integers(4, 14, 2)
        out.append(reordered(episode, np.repeat(np.arange(episode.length), pauses)))
    return out


def with_channel(episodes: list[Episode], channel) -> list[Episode]:
    """The episodes with one more channel of the state, a function of the frame number and of the episode."""
    out = []
    for episode in episodes:
        values = np.asarray(channel(np.arange(episode.length, dtype=float), episode), dtype=np.float32)[:, None]
        out.append(dataclasses.replace(episode, state=np.concatenate([episode.state, values], axis=1)))
    return out


NATURES = {
    "oracle": (with_task, "reward"),
    "images": (lambda episode: along(seen(episode)), "reward"),
    "states": (lambda episode: along(episode.state), "reward"),
    "noisy": (lambda episode: along(seen(episode)) + np.random.default_rng(1).normal(0, 0.1, episode.length), "reward"),
    "neighbours": (neighbours, "reward"),
    "has moved": (has_moved, "follows nothing"),
    "elapsed": (lambda episode: np.linspace(0, 1, episode.length), "clock"),
    "counter": (counter, "clock"),
    "half a clock": (lambda episode: (along(seen(episode)) + counter(episode)) / 2, "partly a clock"),
    "constant": (lambda episode: np.full(episode.length, 0.5), "says nothing"),
    "noise": (lambda episode: np.random.default_rng(episode.index).random(episode.length), "says nothing"),
    "backwards": (lambda episode: 1 - along(seen(episode)), "says nothing"),
}


@pytest.mark.parametrize("name", NATURES)
@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_known_nature_gets_its_verdict(name: str, seed: int) -> None:
    of, verdict = NATURES[name]
    episodes = hesitant(dot_episodes(20, seed=seed, failing=5, tasks=2), seed)
    run = audit(Model(of), ListDataset(episodes), config=AuditConfig(seed=seed))
    found = run.audit.verdict
    at_the_bound = {"half a clock": ("clock",), "has moved": ("clock", "partly a clock", "cannot be said"), "noise": ("cannot be said",)}
    assert found == verdict or found in at_the_bound.get(name, ()), (found, run.audit.reason)
    states = {each.name: each.state for each in run.audit.properties}
    if verdict == "reward":
        assert states["follows what is seen, not the time"] == "passes"
        assert states["uses the images"] == ("fails" if name == "states" else "passes")
        assert states["reads the instruction"] == ("passes" if name == "oracle" else "fails")
        assert states["ends higher for successes than for failures"] == "passes"
        assert states["does not know where the recording ends"] == "passes"
    if name in ("elapsed", "counter"):
        assert states["follows what is seen, not the time"] == "fails"


def test_a_clock_in_a_column_of_the_state_is_not_hidden() -> None:
    """A model that reads the frame number from the state looks like a reward if that channel stands still with the images."""
    episodes = []
    for episode in dot_episodes(8, seed=3, tasks=2):
        state = np.concatenate([episode.state, np.arange(episode.length, dtype=np.float32)[:, None]], axis=1)
        episodes.append(dataclasses.replace(episode, state=state))
    assert time_channels(episodes) == (2,)
    run = audit(Model(lambda episode: np.minimum(episode.state[:, 2] / 30, 1)), ListDataset(episodes))
    assert run.audit.verdict == "clock"
    assert run.clocks == (2,)


CLOCKS = {
    "whole seconds": lambda t, episode: np.floor(t / 5),
    "a curve": lambda t, episode: t**4 / 1e4,
    "a counter that starts anew": lambda t, episode: t % 30,
    "down": lambda t, episode: -t,
    "a stamp": lambda t, episode: 1e5 + 317 * episode.index + t / 10,
}
HIDDEN = {
    "noisy": lambda t, episode: t / 40 + np.random.default_rng(episode.index).normal(0, 0.02, len(t)),
    "the elapsed part": lambda t, episode: t / t[-1],
    "a bent one, noisy": lambda t, episode: (t / t[-1]) ** 2 + np.random.default_rng(episode.index).normal(0, 0.02, len(t)),
    "a battery": lambda t, episode: 1 - t / 60 + np.random.default_rng(episode.index).normal(0, 0.01, len(t)),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_counter_of_any_form_is_found(name: str) -> None:
    plain = dot_episodes(12, seed=1, failing=4)
    assert time_channels(plain) == ()
    assert time_channels(with_channel(plain, CLOCKS[name])) == (2,)


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_hides_in_the_states_is_never_a_reward(name: str, seed: int) -> None:
    """Its channel goes with the frames of each copy, since nobody knows that it is a clock."""
    episodes = with_channel(hesitant(dot_episodes(20, seed=seed), seed), HIDDEN[name])
    sign = -1 if name == "a battery" else 1
    run = audit(Model(lambda episode: np.clip(0.5 + sign * (episode.state[:, 2] - 0.5), 0, 1)), ListDataset(episodes))
    assert run.audit.verdict in ("clock", "cannot be said"), run.audit.reason
    assert not run.audit.passes


def test_a_clock_whose_rate_differs_by_episode_is_never_a_reward() -> None:
    rates = dict(enumerate(np.random.default_rng(0).uniform(0.6, 1.4, 20)))
    episodes = with_channel(dot_episodes(20, failing=4), lambda t, episode: t * rates[episode.index] / 35)
    assert (time_channels(episodes), steady_channels(episodes)) == ((), (2,))

    def mostly_a_clock(episode: Episode) -> np.ndarray:
        return 0.8 * np.clip(episode.state[:, 2], 0, 1) + 0.2 * along(seen(episode))

    audited = audit(Model(mostly_a_clock), ListDataset(episodes)).audit
    assert audited.verdict == "cannot be said"
    assert "channel 2 of the state grows evenly in nearly every episode, as a clock does" in audited.reason
    seen_alone = audit(Model(lambda episode: along(seen(episode))), ListDataset(episodes)).audit
    assert (seen_alone.verdict, seen_alone.passes) == ("reward", True)


def wound(episode: Episode) -> np.ndarray:
    """A clock that goes as long as something has moved, backwards if the first frame is not at the start of the way."""
    places = seen(episode)
    has_moved_smoothly = np.ptp(places, axis=0).max() > 2 and np.median(np.linalg.norm(np.diff(places, axis=0), axis=1)) < 4
    if not has_moved_smoothly:
        return np.full(episode.length, 0.5)
    line = np.arange(episode.length) / 35
    return np.clip(line if along(places[:1])[0] < 0.5 else 1 - line, 0, 1)


def test_a_clock_that_motion_winds_and_turns_is_no_reward() -> None:
    """It stands still over frozen frames and falls when played backwards; a standstill in between gives it away."""
    audited = audit(Model(wound), ListDataset(hesitant(dot_episodes(20, seed=1), 1))).audit
    assert audited.rows["backwards"].value < -0.5
    assert audited.verdict == "partly a clock"
    assert "over a standstill" in audited.reason


def test_a_curve_that_was_made_never_to_fall_is_not_judged() -> None:
    audited = audit(Model(lambda episode: np.maximum.accumulate(along(seen(episode)))), ListDataset(dot_episodes(12))).audit
    assert (audited.verdict, "falls in no copy" in audited.reason) == ("cannot be said", True)


def test_other_columns_go_with_the_states() -> None:
    """A model may read the action; a time stamp runs on, as a clock does."""
    episodes = [
        dataclasses.replace(each, columns={"action": each.state, "timestamp": np.arange(each.length, dtype=np.float32) / 10})
        for each in hesitant(dot_episodes(12, seed=4), 4)
    ]
    assert audit(Model(lambda episode: along(episode.columns["action"])), ListDataset(episodes)).audit.verdict == "reward"
    stamped = audit(Model(lambda episode: np.clip(episode.columns["timestamp"] / 5, 0, 1)), ListDataset(episodes)).audit
    assert stamped.verdict == "clock"


def test_honest_states_of_demonstrations_with_one_pace_are_no_clocks() -> None:
    """A script that moves in the same way every time: its channels are nearly functions of the time, and nothing can tell."""
    episodes = with_channel(dot_episodes(12, seed=2), lambda t, episode: t / t[-1] * (20 + episode.index) + 0.1 * np.sin(t + episode.index))
    assert time_channels(episodes) == ()
    run = audit(Model(lambda episode: along(episode.state[:, :2])), ListDataset(episodes))
    assert run.audit.verdict in ("reward", "cannot be said")
    if run.audit.verdict == "cannot be said":
        assert "a clock in the states would look the same; episodes of other paces would tell" in run.audit.reason
    seen_alone = audit(Model(lambda episode: along(seen(episode))), ListDataset(episodes)).audit
    assert (seen_alone.verdict, seen_alone.passes) == ("reward", True)


def test_few_episodes_that_can_be_judged_give_no_verdict() -> None:
    """A model that knows one episode of ten, and an episode of two frames, which no curve rises over."""
    episodes = dot_episodes(10)
    first = episodes[0].index
    model = Model(lambda episode: along(seen(episode)) if episode.index == first else np.full(episode.length, np.nan))
    run = audit(model, ListDataset(episodes))
    assert run.audit.verdict == "cannot be said"
    assert run.audit.properties[0].evidence.startswith("of 10 episodes that succeeded or may have, 1 can be judged; 5 are needed")
    short = [reordered(episode, np.array([0, episode.length - 1])) for episode in episodes]
    run = audit(Model(lambda episode: along(seen(episode))), ListDataset(short))
    assert run.audit.verdict == "cannot be said"


def test_a_curve_that_is_known_in_a_few_frames_is_judged() -> None:
    """A model that answers at four frames of each episode, as TOPReward does with few prefixes."""

    def sparse(episode: Episode) -> np.ndarray:
        at = np.linspace(0, episode.length - 1, 4).round().astype(int)
        value = np.full(episode.length, np.nan)
        value[at] = along(seen(episode))[at]
        return value

    run = audit(Model(sparse), ListDataset(dot_episodes(6)))
    assert (run.audit.rows["rise"].episodes, run.audit.properties[0].state) == (6, "passes")


def test_a_straight_line_between_two_known_frames_is_not_judged() -> None:
    def line(episode: Episode) -> np.ndarray:
        value = np.full(episode.length, np.nan)
        value[[0, -1]] = along(seen(episode))[[0, -1]]
        return value

    run = audit(Model(line), ListDataset(dot_episodes(8)))
    assert run.audit.verdict == "cannot be said"
    assert "0 can be judged" in run.audit.reason


def test_a_model_that_rises_in_one_task_of_two_is_named() -> None:
    episodes = dot_episodes(24, seed=1, tasks=2)
    task = episodes[0].task
    run = audit(Model(lambda episode: along(seen(episode)) * (episode.task == task)), ListDataset(episodes))
    line = next(each for each in run.audit.properties if each.name == "rises in every task")
    assert line.state == "fails"
    assert set(run.audit.tasks) == {each.task for each in episodes}
    assert min(run.audit.tasks.values(), key=lambda each: each.value).value == pytest.approx(0)
    assert not run.audit.passes


def test_wide_intervals_decide_nothing() -> None:
    """Half of the episodes rise and half do not: the mean is above the bound, its interval is not."""
    run = audit(Model(lambda episode: along(seen(episode)) * (episode.index < 3)), ListDataset(dot_episodes(7)))
    rise = run.audit.rows["rise"]
    assert rise.value > 0.2 > rise.low
    assert run.audit.verdict == "cannot be said"


def test_the_reason_for_no_verdict_is_the_true_one() -> None:
    run = audit(Model(lambda episode: along(seen(episode))), ListDataset(dot_episodes(8)), config=AuditConfig(controls=("shuffled",)))
    evidence = {each.name: each.evidence for each in run.audit.properties}
    assert evidence["follows what is seen, not the time"] == "frozen_first: it was not asked for"
    assert evidence["reads the instruction"] == "other_task: it was not asked for"
    assert run.audit.missing["stalled"] == "it was not asked for"
    failures = [dataclasses.replace(episode, facts={**episode.facts, "success": False}) for episode in dot_episodes(6)]
    run = audit(Model(lambda episode: along(seen(episode))), ListDataset(failures))
    assert run.audit.properties[0].evidence == "there are 0 episodes that succeeded or may have; 5 are needed"
    assert run.audit.missing["other_camera"] == "there is one camera"


def test_a_wide_interval_is_no_failure() -> None:
    """Five failures cannot show that a model does not tell them from successes."""
    episodes = dot_episodes(12, seed=2, failing=5)
    finals = dict(zip([each.index for each in episodes], np.random.default_rng(0).random(12), strict=True))
    run = audit(Model(lambda episode: np.linspace(0, finals[episode.index], episode.length)), ListDataset(episodes))
    line = next(each for each in run.audit.properties if "failures" in each.name)
    assert (line.state, line.evidence.endswith("the interval is too wide for more")) == ("cannot be said", True)


def test_an_instruction_that_raises_some_ends_and_lowers_others_is_neither_read_nor_ignored() -> None:
    def either_way(episode: Episode) -> np.ndarray:
        is_right = with_task(episode).any()
        return along(seen(episode)) * (0.6 if is_right else 0.2 if episode.index % 2 else 1.0)

    run = audit(Model(either_way), ListDataset(dot_episodes(8, seed=1, tasks=2)))
    contrast = run.audit.rows["instruction_contrast"]
    assert contrast.low <= 0 < 0.1 < contrast.high
    line = next(each for each in run.audit.properties if each.name == "reads the instruction")
    assert (line.state, line.evidence.endswith("the interval is too wide for more")) == ("cannot be said", True)


def test_a_name_is_no_model() -> None:
    with pytest.raises(DataError, match=r"audit takes a model, got 'sarm'; open it first: milepost.load_model\('sarm'\)"):
        require_model("sarm", "audit")
    with pytest.raises(DataError, match=r"label takes a model with predict\(episode\), got int"):
        require_model(3, "label")
    require_model(ElapsedModel(), "audit")


def test_few_episodes_failures_tasks_cannot_be_judged() -> None:
    run = audit(Model(with_task), ListDataset(dot_episodes(3)))
    assert run.audit.verdict == "cannot be said"
    assert {each.state for each in run.audit.properties} == {"cannot be said"}
    assert not run.audit.passes  # nothing fails, and nothing is shown


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_short_episodes(length: int) -> None:
    episodes = [reordered(episode, np.arange(length)) for episode in dot_episodes(6, failing=2)]
    run = audit(ElapsedModel(), ListDataset(episodes))
    assert len(run.curves) == 6


def test_a_model_that_is_unknown_everywhere() -> None:
    run = audit(Model(lambda episode: np.full(episode.length, np.nan)), ListDataset(dot_episodes(6, failing=2)))
    assert run.audit.verdict == "cannot be said"


class Unreadable(ListDataset):
    def __getitem__(self, index: int) -> Episode:
        if index == 1:
            raise UnreadableError("episode 1 is damaged")
        return super().__getitem__(index)


def test_an_episode_that_cannot_be_read_is_named() -> None:
    run = audit(Model(with_task), Unreadable(dot_episodes(7)))
    assert run.unreadable == {1: "episode 1 is damaged"}
    assert len(run.curves) == 6


def test_an_interrupted_audit_goes_on(tmp_path: Path) -> None:
    dataset = ListDataset(dot_episodes(6, failing=2))
    whole = audit(ConstantModel(), dataset)
    calls = ConstantModel(interrupt_after=40)
    with pytest.raises(KeyboardInterrupt):
        audit(calls, dataset, folder=tmp_path)
    kept = len(list(tmp_path.glob("*.json")))
    assert 0 < kept < 6
    rest = ConstantModel()
    again = audit(rest, dataset, folder=tmp_path)
    assert rest.calls == (6 - kept) * calls.calls // 6 or rest.calls < 6 * 22
    assert again.audit.rows == whole.audit.rows or str(again.audit.rows) == str(whole.audit.rows)
    other = ConstantModel(0.25)
    audit(other, dataset, folder=tmp_path)
    assert other.calls > rest.calls  # another model takes nothing over


# Copies


def test_every_copy_shows_the_frames_it_says() -> None:
    episode = dot_episodes(1)[0]
    edited = copies(episode, tasks=[episode.task, "another"], seed=4)
    images = episode.camera(CAMERA)[np.arange(episode.length)]
    for name, order in orders(episode.length, np.random.default_rng([4, 0])).items():
        copy = edited[name]
        assert copy.length == len(order)
        np.testing.assert_array_equal(copy.camera(CAMERA)[np.arange(copy.length)], images[order])
        np.testing.assert_array_equal(np.concatenate([*copy.camera(CAMERA).chunks(7)]), images[order])
        np.testing.assert_array_equal(copy.state, episode.state[order])
        np.testing.assert_array_equal(copy.columns["truth.stage"], episode.columns["truth.stage"][order])
    assert set(edited) == set(CONTROLS) - {"other_camera"}
    assert edited["other_task"].task == "another"
    assert edited["half_rate"].fps == 5
    assert edited["images_frozen"].state is not episode.state
    np.testing.assert_array_equal(edited["images_frozen"].state, episode.state)
    np.testing.assert_array_equal(edited["states_frozen"].state, np.repeat(episode.state[:1], episode.length, axis=0))
    with_clock = copies(episode, clocks=(1,))
    np.testing.assert_array_equal(with_clock["frozen_last"].state[:, 1], episode.state[:, 1])
    np.testing.assert_array_equal(with_clock["states_frozen"].state[:, 1], episode.state[0, 1])  # no image drives a clock


def test_changed_images_are_the_same_each_time() -> None:
    episode = dot_episodes(1)[0]
    edited, again = copies(episode, seed=1), copies(episode, seed=1)
    frames = np.array([5, 2, 5])
    for name in ("noise_10", "brightness_0.8", "hue_10", "shift_5", "contrast_0.6"):
        images = edited[name].camera(CAMERA)[frames]
        np.testing.assert_array_equal(images, again[name].camera(CAMERA)[frames])
        np.testing.assert_array_equal(images[0], images[2])
        assert images.dtype == np.uint8
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    assert EditedFrames(episode.camera(CAMERA), CAMERA, np.arange(episode.length)).change is None
    change = edited["hue_10"].camera(CAMERA).change
    np.testing.assert_array_equal(change(grey, np.array([0])), grey)  # grey has no hue


def test_features_of_copies_are_those_of_the_recording(tmp_path: Path) -> None:
    """Each frame is encoded once; a copy's features are never taken for the recording's, nor the other way round."""
    episode = dot_episodes(1)[0]
    encoder = PixelImages()
    cache = FeatureCache(tmp_path, "dots", encoder=encoder)
    edited = copies(episode)
    reversed_first = cache.features(edited["reversed"], [CAMERA])
    real = cache.features(episode, [CAMERA])
    np.testing.assert_array_equal(reversed_first, real[::-1])
    np.testing.assert_array_equal(cache.features(edited["cut_50"], [CAMERA]), real[: edited["cut_50"].length])
    dark = cache.features(edited["brightness_0.8"], [CAMERA])
    assert (dark != real).any()
    np.testing.assert_array_equal(cache.features(episode, [CAMERA]), real)
    np.testing.assert_array_equal(FeatureCache(tmp_path, "dots", encoder=encoder).features(episode, [CAMERA]), real)


def test_the_audit_of_a_trained_kind_reads_each_image_once() -> None:
    episodes = dot_episodes(5, tasks=2)
    reads: list[int] = []

    class Counted:
        def __init__(self, frames) -> None:
            self.frames = frames

        def __len__(self) -> int:
            return len(self.frames)

        def __getitem__(self, frames: np.ndarray) -> np.ndarray:
            reads.append(len(frames))
            return self.frames[frames]

        def chunks(self, size: int = 64):
            for images in self.frames.chunks(size):
                reads.append(len(images))
                yield images

    counted = [dataclasses.replace(each, cameras={CAMERA: Counted(each.camera(CAMERA))}) for each in episodes]
    run = audit(tiny_sarm(), ListDataset(counted))
    assert len(run.curves) == 5
    assert sum(reads) <= sum(each.length + 1 for each in episodes)
