"""Episodes that the server follows later, and the routes of Robometer's clients: the curve is the offline curve; robots go first."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from test_reward_server import Faulty, images, number, serving

from milepost.core import DataError, Episode, Step
from milepost.online import NPZ, AsyncRewardClient, FrameProgress, RewardClient, SessionConfig, ShapingConfig, pack_episode
from milepost.online.wire import pack
from milepost.testing import dot_episodes, tiny_sarm

TOP = "observation.images.top"


def stacked(episode: Episode) -> dict[str, np.ndarray]:
    return {camera: episode.camera(camera)[np.arange(episode.length)] for camera in episode.cameras}


def waited(client: RewardClient, ticket: str) -> list[FrameProgress]:
    until = time.monotonic() + 60
    while (results := client.relabelled(ticket)) is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    return results


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_an_episode_that_comes_later_has_the_offline_curve(scheme: str) -> None:
    """Twenty episodes at once, more than go through the model together; the rewards are those of the robot's own session."""
    model, episodes = tiny_sarm(), dot_episodes(20)
    with serving(model) as url, RewardClient(url.replace("http", scheme)) as client:
        tickets = [client.relabel(stacked(each), each.state, task=each.task, fps=each.fps, is_terminal=True) for each in episodes]
        for episode, ticket in zip(episodes, tickets, strict=True):
            results = waited(client, ticket)
            assert [each.frame for each in results] == list(range(episode.length))
            np.testing.assert_allclose([each.progress for each in results], model.predict(episode).main.value, atol=1e-5)
        session = client.begin(task=episode.task, fps=episode.fps)
        last = episode.length - 1
        rewards = [client.step(session, images(episode, n), episode.state[n], is_terminal=n == last).reward for n in range(episode.length)]
        np.testing.assert_allclose([each.reward for each in results], rewards, atol=1e-5)
        assert rewards[-1] == pytest.approx(-results[-2].progress, abs=1e-5)


def test_images_as_png_and_one_that_is_damaged() -> None:
    (episode,), model = dot_episodes(1), tiny_sarm()

    def png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    packed = [png(image) for image in stacked(episode)[TOP]]
    with serving(model) as url, RewardClient(url) as client:
        ticket = client.relabel({TOP: packed}, episode.state, task=episode.task, fps=episode.fps)
        np.testing.assert_allclose([each.progress for each in waited(client, ticket)], model.predict(episode).main.value, atol=1e-5)
        ticket = client.relabel({TOP: [*packed[:2], b"no image", *packed[3:]]}, episode.state, task=episode.task, fps=episode.fps)
        results = waited(client, ticket)
    assert [math.isnan(each.progress) for each in results] == [n == 2 for n in range(episode.length)]
    assert "cannot be decoded" in results[2].reason


@pytest.mark.parametrize("damage", ["state", "image"])
def test_frames_of_an_episode_that_cannot_be_used(damage: str) -> None:
    """The later curve is that of a robot that never sent them; a terminal frame that is not known takes -phi(s) back all the same."""
    (episode,), model = dot_episodes(1), tiny_sarm()
    last, state, pictures = episode.length - 1, episode.state.copy(), list(stacked(episode)[TOP])
    packed = [io.BytesIO() for _ in pictures]
    for file, picture in zip(packed, pictures, strict=True):
        Image.fromarray(picture).save(file, "PNG")
    content = [file.getvalue() for file in packed]
    bad = {2, 3, 5, last}
    for frame in bad:
        if damage == "state":
            state[frame] = np.nan
        else:
            content[frame] = b"no image"
    config = SessionConfig(shaping=ShapingConfig(gamma=0.9))
    with serving(model, config) as url, RewardClient(url) as client:
        ticket = client.relabel({TOP: content}, state, task=episode.task, fps=episode.fps, is_terminal=True)
        results = waited(client, ticket)
        session = client.begin(task=episode.task, fps=episode.fps)
        expected = {n: client.step(session, images(episode, n), episode.state[n], frame=n) for n in range(episode.length) if n not in bad}
    assert {each.frame for each in results if each.reason} == bad
    for frame, each in expected.items():
        assert (results[frame].progress, results[frame].reward) == pytest.approx((each.progress, each.reward), abs=1e-5, nan_ok=True)
    total = sum(0.9 ** (n - 1) * each.reward for n, each in enumerate(results) if not math.isnan(each.reward))
    assert total == pytest.approx(-results[0].progress, abs=1e-5)


def test_asyncio_relabels() -> None:
    (episode,), model = dot_episodes(1), tiny_sarm()

    async def drive(url: str) -> list[FrameProgress]:
        async with AsyncRewardClient(url) as client:
            ticket = await client.relabel(stacked(episode), episode.state, task=episode.task, fps=episode.fps)
            while (results := await client.relabelled(ticket)) is None:
                await asyncio.sleep(0.005)
        return results

    with serving(model) as url:
        results = asyncio.run(drive(url))
    np.testing.assert_allclose([each.progress for each in results], model.predict(episode).main.value, atol=1e-5)


class Ordered:
    """A model that writes down which kind of frame it saw: 1 of a robot, 2 of an episode that may come later."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def begin(self, *, task: str, fps: float) -> list[int]:
        if task == "broken":
            raise DataError("this task does not fit")
        return []

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        self.order += [int(next(iter(each.values())).flat[0]) for each in frames]
        time.sleep(0.002)
        return [Step(0.5) for _ in frames]


def test_robots_go_first_and_episodes_do_not_starve() -> None:
    model, episode = Ordered(), {"camera": np.full((300, 8, 8, 3), 2, np.uint8)}
    with serving(model) as url, RewardClient(url.replace("http", "ws")) as client:
        session = client.begin(task="a", fps=1.0)
        ticket = client.relabel(episode, task="a", fps=1.0)
        for _ in range(50):
            client.step(session, number(1))
        waited(client, ticket)
    first = model.order[: len(model.order) - model.order[::-1].index(1)]  # while the robot moved
    assert first.count(1) == 50
    assert 0 < first.count(2) < 300
    assert model.order.count(2) == 300


def test_episodes_that_fail_say_why_and_take_nobody_along() -> None:
    with serving(Ordered()) as url, RewardClient(url) as client:
        good = client.relabel({"camera": np.zeros((3, 8, 8, 3), np.uint8)}, task="a", fps=1.0)
        bad = client.relabel({"camera": np.zeros((3, 8, 8, 3), np.uint8)}, task="broken", fps=1.0)
        assert len(waited(client, good)) == 3
        with pytest.raises(DataError, match="this task does not fit"):
            waited(client, bad)
        with pytest.raises(DataError, match="no ticket 'nobody'"):
            client.relabelled("nobody")
    with serving(Faulty()) as url, RewardClient(url) as client:
        ticket = client.relabel({"camera": np.full((2, 8, 8, 3), 3, np.uint8)}, task="a", fps=1.0)
        with pytest.raises(DataError, match=r"refused \(500\): the model failed: RuntimeError: a kernel failed"):
            waited(client, ticket)
        assert client.step(client.begin(task="a", fps=1.0), number(4)).progress == pytest.approx(0.4)


FRAMES = np.zeros((2, 8, 8, 3), np.uint8)
EPISODES = {
    "no cameras": (pack({"task": "a", "fps": 1.0}, {}), "has 'cameras'"),
    "no task": (pack({"fps": 1.0}, {}), "'task' is missing"),
    "no frames": (pack({"task": "a", "fps": 1.0, "cameras": ["b"]}, {}), "no array 'frames/b'"),
    "three axes": (pack_episode({"b": FRAMES[0]}, task="a", fps=1.0), "(T, H, W, 3) is expected"),
    "empty": (pack_episode({"b": FRAMES[:0]}, task="a", fps=1.0), "at least one"),
    "no images": (pack_episode({"b": []}, task="a", fps=1.0), "at least one"),
    "lengths": (pack_episode({"b": FRAMES}, np.zeros((3, 2)), task="a", fps=1.0), "a row for each frame"),
    "state": (pack_episode({"b": FRAMES}, np.zeros(2), task="a", fps=1.0), "a row of numbers"),
    "sizes": (
        pack({"task": "a", "fps": 1.0, "cameras": ["b"]}, {"frames/b": np.zeros(5, np.uint8), "sizes/b": np.array([2, 2])}),
        "do not add up",
    ),
}


@pytest.mark.parametrize("name", EPISODES)
def test_malformed_episodes_are_refused_with_a_word(name: str) -> None:
    body, words = EPISODES[name]
    with serving(Ordered()) as url:
        reply = httpx2.post(f"{url}/relabel", content=body, headers={"content-type": NPZ})
    assert reply.status_code == 400, reply.text
    assert words in reply.json()["error"]


# Robometer's clients


def sample_of(place: int, frames: np.ndarray, task: str) -> tuple[str, str]:
    fields = {
        "sample_type": "progress",
        "trajectory": {
            "frames": {"__numpy_file__": f"sample_{place}_trajectory_frames"}, "frames_shape": list(frames.shape), "task": task, "id": "0",
            "metadata": {"subsequence_length": len(frames)}, "video_embeddings": None,
        },
    }  # fmt: skip
    return f"sample_{place}", json.dumps(fields)


def form_of(videos: list[tuple[np.ndarray, str]]) -> dict[str, Any]:
    """Returns what a client of Robometer's server sends, written anew from its format."""
    files = {}
    for place, (frames, _) in enumerate(videos):
        file = io.BytesIO()
        np.save(file, frames)
        files[f"sample_{place}_trajectory_frames"] = (f"sample_{place}.npy", file.getvalue(), "application/octet-stream")
    return {"files": files, "data": dict(sample_of(n, *video) for n, video in enumerate(videos)) | {"use_frame_steps": "true"}}


class Seer:
    """A model of one camera without a state, whose progress is the mean brightness."""

    def begin(self, *, task: str, fps: float) -> list[int]:
        return []

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step | DataError]:
        values = [float(each[TOP].mean()) / 255 for each in frames]
        return [Step(value, {"success": value / 2}) if value < 0.9 else DataError("too bright") for value in values]


def test_a_client_of_robometer_is_answered() -> None:
    videos = [(np.stack([np.full((8, 8, 3), 20 * n + 10, np.uint8) for n in range(length)]), "visit") for length in (3, 5)]
    with serving(Seer(), cameras=(TOP,)) as url:
        assert httpx2.get(f"{url}/health").json()["available_gpus"] == 1
        assert httpx2.get(f"{url}/gpu_status").json()["total_gpus"] == 1
        reply = httpx2.post(f"{url}/evaluate_batch_npy", **form_of(videos))
        assert reply.status_code == 200, reply.text
        progress, success = reply.json()["outputs_progress"]["progress_pred"], reply.json()["outputs_success"]["success_probs"]
        for (frames, _), curve, probabilities in zip(videos, progress, success, strict=True):
            np.testing.assert_allclose(curve, frames.mean(axis=(1, 2, 3)) / 255)
            np.testing.assert_allclose(probabilities, np.array(curve) / 2)
        samples = [{"sample_type": "progress", "trajectory": {"frames": frames.tolist(), "task": task}} for frames, task in videos]
        again = httpx2.post(f"{url}/evaluate_batch", json={"samples": samples, "use_frame_steps": True})
        assert again.json() == reply.json()
        bright = httpx2.post(f"{url}/evaluate_batch_npy", **form_of([(np.full((2, 8, 8, 3), 255, np.uint8), "visit")])).json()
    assert bright["outputs_progress"]["progress_pred"] == [[None, None]]
    assert bright["reasons"] == ["too bright"]


def test_sarm_without_a_state_answers_robometers_client_as_its_curve() -> None:
    (episode,), model = dot_episodes(1), tiny_sarm()
    video = stacked(episode)[TOP]
    with serving(model, cameras=model.config.cameras) as url:
        reply = httpx2.post(f"{url}/evaluate_batch_npy", **form_of([(video, episode.task)])).json()
    assert "robot state" in reply["reasons"][0]
    assert set(reply["outputs_progress"]["progress_pred"][0]) == {None}


BAD_SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"samples": [{"sample_type": "preference"}]}, "of the kind 'preference'"),
    ({"samples": [{"sample_type": "progress"}]}, "has no 'trajectory'"),
    ({"samples": [{"trajectory": {"frames": [[[[0, 0, 0]]]]}}]}, "has no 'task'"),
    ({"samples": [{"trajectory": {"task": "a", "frames": [[0, [1]]]}}]}, "are no array"),
    ({"samples": [{"trajectory": {"task": "a", "frames": [[[[0, 0, 256]]]]}}]}, "whole numbers to 255"),
    ({"samples": []}, "1 to 256 samples"),
    ({}, "'samples', a list"),
]


@pytest.mark.parametrize(("body", "words"), BAD_SAMPLES)
def test_samples_that_do_not_fit(body: dict[str, Any], words: str) -> None:
    with serving(Seer(), cameras=(TOP,)) as url:
        reply = httpx2.post(f"{url}/evaluate_batch", json=body)
        assert reply.status_code == 400, reply.text
        assert words in reply.json()["error"]


def test_forms_that_do_not_fit() -> None:
    form = form_of([(FRAMES, "a")])
    with serving(Seer(), cameras=(TOP,)) as url:
        reply = httpx2.post(f"{url}/evaluate_batch_npy", data=form["data"], files={"other": b""})
        assert "no file 'sample_0_trajectory_frames'" in reply.json()["error"]
        for name in ("sample_²", "0"):
            reply = httpx2.post(f"{url}/evaluate_batch_npy", data={name: form["data"]["sample_0"]}, files=form["files"])
            assert "1 to 256 samples" in reply.json()["error"]
        pickled = io.BytesIO()
        np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
        reply = httpx2.post(f"{url}/evaluate_batch_npy", data=form["data"], files={"sample_0_trajectory_frames": pickled.getvalue()})
        assert "is no .npy" in reply.json()["error"]
    for cameras in ((), (TOP, "other")):
        with serving(Seer(), cameras=cameras) as url:
            assert "a video of one camera" in httpx2.post(f"{url}/evaluate_batch_npy", **form).json()["error"]


def test_rewards_keep_the_servers_shaping() -> None:
    config = SessionConfig(shaping=ShapingConfig("absolute"))
    with serving(Seer(), config) as url, RewardClient(url) as client:
        results = waited(client, client.relabel({TOP: np.full((3, 8, 8, 3), 51, np.uint8)}, task="a", fps=1.0))
    assert [each.reward for each in results[1:]] == pytest.approx([0.2, 0.2])


def test_refused_episodes_are_counted_and_results_are_bounded_by_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.serving.later.MOST_FRAMES", 5)
    model = Faulty()
    with serving(model) as url, RewardClient(url) as client:
        with pytest.raises(DataError, match="at most 5 frames here, this one has 6"):
            client.relabel({"camera": np.zeros((6, 8, 8, 3), np.uint8)}, task="a", fps=1.0)
        waiting = client.relabel({"camera": np.full((3, 8, 8, 3), 5, np.uint8)}, task="a", fps=1.0)
        with pytest.raises(DataError, match=r"refused \(503\): 1 episodes wait"):
            client.relabel({"camera": np.zeros((3, 8, 8, 3), np.uint8)}, task="a", fps=1.0)
        assert "milepost_refused_requests_total 1\n" in httpx2.get(f"{url}/metrics").text
        model.go_on.set()
        assert len(waited(client, waiting)) == 3
        assert len(waited(client, client.relabel({"camera": np.zeros((3, 8, 8, 3), np.uint8)}, task="a", fps=1.0))) == 3
        with pytest.raises(DataError, match="newer ones took its place"):
            client.relabelled(waiting)


def test_the_memory_of_episodes_that_wait_is_an_option_and_named() -> None:
    model = Faulty()
    with serving(model, most_waiting=1000) as url, RewardClient(url) as client:
        waiting = client.relabel({"camera": np.full((3, 8, 8, 3), 5, np.uint8)}, task="a", fps=1.0)
        words = r"refused \(503\): 1 episodes wait for the model already, which take 576 of 1000 bytes \(--max-waiting-mb\)"
        with pytest.raises(DataError, match=words):
            client.relabel({"camera": np.zeros((3, 8, 8, 3), np.uint8)}, task="a", fps=1.0)
        with pytest.raises(DataError, match=r"refused \(400\): the episode takes 1152 bytes, and all that wait may take 1000"):
            client.relabel({"camera": np.zeros((6, 8, 8, 3), np.uint8)}, task="a", fps=1.0)
        model.go_on.set()
        assert len(waited(client, waiting)) == 3
