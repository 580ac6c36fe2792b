"""Calls that are sent again after a lost answer, and what a client refuses before it sends anything."""

from __future__ import annotations

import asyncio
import math

import httpx2
import numpy as np
import pytest
from test_reward_server import serving

from milepost.core import DataError
from milepost.online import NPZ, AsyncRewardClient, Observation, RewardClient
from milepost.online.wire import json_text, pack
from milepost.testing import dot_episodes, tiny_sarm


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_an_end_whose_answer_was_lost_may_be_sent_again(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.serving.service.MOST_KEYS", 3)
    with serving(tiny_sarm()) as url, RewardClient(url.replace("http", scheme)) as client:
        names = [client.begin(task="visit", fps=1.0) for _ in range(4)]
        client.end(names[0])
        client.end(names[0])
        with pytest.raises(DataError, match="there is no session"):
            client.begin(task="visit", fps=1.0, session=names[0])
        for name in names[1:]:
            client.end(name)
        with pytest.raises(DataError, match=r"refused \(404\)"):  # so many calls ago nobody remembers
            client.end(names[0])


def test_keys_name_one_call_and_are_short() -> None:
    with serving(tiny_sarm()) as url:
        begun = httpx2.post(f"{url}/sessions", json={"task": "a", "fps": 1.0, "key": "one"}).json()
        assert httpx2.post(f"{url}/sessions", json={"task": "a", "fps": 1.0, "key": "one"}).json() == begun
        body = pack({"observations": [], "key": "one"}, {})
        assert httpx2.post(f"{url}/step", content=body, headers={"content-type": NPZ}).json() == {"results": []}
        answer = httpx2.post(f"{url}/sessions", json={"task": "a", "fps": 1.0, "key": "x" * 10_000})
        assert (answer.status_code, answer.json()["error"]) == (400, "'key' has at most 400 letters, this one has 10000")


BAD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_number_that_is_none_is_named_before_it_is_sent(scheme: str, name: str) -> None:
    """No server is at this address: nothing was sent."""
    value, words = BAD[name], f"'fps' should be a finite number, got {name}"
    with RewardClient(f"{scheme}://127.0.0.1:9", reconnect_s=0.0) as client:
        with pytest.raises(DataError, match=words):
            client.begin(task="a", fps=value)
        with pytest.raises(DataError, match=words):
            client.relabel({"camera": np.zeros((2, 8, 8, 3), np.uint8)}, task="a", fps=value)

    async def begin() -> None:
        async with AsyncRewardClient(f"{scheme}://127.0.0.1:9", reconnect_s=0.0) as client:
            await client.begin(task="a", fps=value)

    with pytest.raises(DataError, match=words):
        asyncio.run(begin())


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_numbers_of_a_frame_that_are_none_cost_no_other_robot_its_answer(scheme: str) -> None:
    episode = dot_episodes(1)[0]
    frames = {camera: episode.camera(camera)[np.array([0])][0] for camera in episode.cameras}
    with serving(tiny_sarm()) as url, RewardClient(url.replace("http", scheme)) as client:
        names = [client.begin(task=episode.task, fps=episode.fps) for _ in range(3)]
        odd = Observation(names[0], frames, episode.state[0])
        object.__setattr__(odd, "frame", math.nan)  # outside the tests nothing checks its types
        nowhere = Observation(names[1], frames, np.full_like(episode.state[0], np.nan))
        results = client.step_all([odd, nowhere, Observation(names[2], frames, episode.state[0])])
        assert results[0].reason.startswith("the frame has the number 'nan'")
        assert results[1].reason == "the robot state has NaN or infinite numbers"
        assert 0 <= results[2].progress <= 1


def test_what_json_does_not_know_is_named() -> None:
    for fields, words in (
        ({"task": b"a"}, "'task' cannot be sent: it is of the type bytes"),
        ({"rows": [{"x": 1}, {"x": [1, object()]}]}, r"'rows\[1\].x\[1\]' cannot be sent: it is of the type object"),
        ({"fps": np.float32("nan")}, "'fps' should be a finite number, got nan"),
    ):
        with pytest.raises(DataError, match=words):
            json_text(fields)
    assert json_text({"a": np.float32(10.0), "b": np.int64(3), "c": np.bool_(True)}) == '{"a": 10.0, "b": 3, "c": true}'
