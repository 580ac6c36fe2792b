"""What comes in and is no frame: one robot's costs no other robot its answer, and no damaged byte is a fault of the server."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load
from test_later import Seer, form_of, waited
from test_reward_server import images, serving

from milepost.core import DataError, Step, rgb_image
from milepost.online import NPZ, Observation, RewardClient, Sessions, pack_episode, pack_observations
from milepost.online.wire import body_type
from milepost.testing import dot_episodes, tiny_sarm

TOP = "observation.images.top"
EPISODE = dot_episodes(1)[0]
STATE = EPISODE.state[0]
IMAGE = images(EPISODE, 0)[TOP]


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(tiny_sarm(), cameras=(TOP,)) as address:
        yield address


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no jpeg": ({"images": {TOP: b"\xff\xd8junk"}}, f"the image of camera '{TOP}' cannot be decoded"),
    "cut png": ({"images": {TOP: encoded(IMAGE)[:100]}}, f"the image of camera '{TOP}' cannot be decoded"),
    "state of two axes": ({"state": np.zeros((2, 2), np.float32)}, "the state has the shape (2, 2)"),
    "state of words": ({"state": np.array(["a"])}, "the state has the shape (1,) and the type <U1"),
    "frame -1": ({"frame": -1}, "the number -1; a whole number from 0 on"),
    "frame of words": ({"frame": "7"}, "the number '7'"),
    "frame of no JSON": ({"frame": 1j}, "the number '1j'"),
    "objects": ({"images": {TOP: np.array([None, 1], object)}}, f"the image of camera '{TOP}' is an array of Python objects"),
    "ragged": ({"images": {TOP: [[1], [1, 2]]}}, f"the image of camera '{TOP}' is no array"),
    "void": (
        {"images": {TOP: np.zeros((8, 8, 3), "V4")}},
        f"the image of camera '{TOP}' should be uint8, or float between 0 and 1, got |V4",
    ),
    "a text": ({"images": {TOP: "abc"}}, f"the image of camera '{TOP}' should be (H, W, 3)"),
    "deep png": ({"images": {TOP: encoded(np.zeros((9, 9), np.uint16))}}, "more than 8 bits a channel"),
    "camera 3": ({"images": {3: IMAGE}}, "no 'cameras', a list of names"),
    "session": ({"session": 3}, "observations[1] has no 'session'"),
    "a name too long": ({"session": "x" * 1_000_000}, "observations[1] has no 'session'"),
}


def unchecked(**fields: Any) -> Observation:
    """Returns an observation whose fields may be of any type."""
    observation = Observation("", {})
    for name, value in fields.items():
        object.__setattr__(observation, name, value)
    return observation


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("name", BAD)
def test_one_bad_frame_costs_no_other_robot_its_answer(name: str, scheme: str, url: str) -> None:
    fields, words = BAD[name]
    with RewardClient(url.replace("http", scheme)) as client:
        good, bad = (client.begin(task=EPISODE.task, fps=EPISODE.fps) for _ in range(2))
        wrong = unchecked(**{"session": bad, "images": {TOP: IMAGE}, "state": STATE, **fields})
        results = client.step_all([Observation(good, {TOP: IMAGE}, STATE), wrong, Observation(good, images(EPISODE, 1), EPISODE.state[1])])
        assert [results[0].frame, results[2].frame] == [0, 1]
        np.testing.assert_allclose([results[0].progress, results[2].progress], tiny_sarm().predict(EPISODE).main.value[:2], atol=1e-5)
        assert math.isnan(results[1].progress)
        assert words in results[1].reason, results[1].reason
        assert len(results[1].reason) < 400
        client.end(good)
        client.end(bad)


def test_a_bad_frame_is_refused_in_its_place(url: str) -> None:
    """It ends an attempt where it is terminal, takes its number, and changes no later frame. No frames are an answer without results."""
    with RewardClient(url) as client:
        assert client.step_all([]) == []
        session = client.begin(task=EPISODE.task, fps=EPISODE.fps)
        bad = Observation(session, {TOP: b"junk"}, STATE)
        results = client.step_all([Observation(session, {TOP: IMAGE}, STATE), bad, Observation(session, {TOP: IMAGE}, STATE)])
        assert [each.frame for each in results] == [0, 1, 2]
        assert client.step(session, {TOP: b"junk"}, STATE, is_terminal=True).reward == pytest.approx(-results[2].progress / 1, abs=1e-5)
        assert "ended with its terminal frame 3" in client.step(session, {TOP: IMAGE}, STATE).reason


KINDS = ["?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d", "g", "F", "D", "U3", "S3", "V4", "M8[s]", "m8[s]", "i4,f4"]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_bytes_or_floats_to_one_and_nothing_else(kind: str, url: str) -> None:
    """Of every kind of numpy: by `rgb_image`, by the server, and by `relabel`."""
    image = np.zeros((32, 32, 3), np.dtype(kind))
    is_image = kind == "B" or kind in "efdg"
    if is_image:
        assert rgb_image(image, "it").dtype == np.uint8
    else:
        with pytest.raises(DataError, match="it should be uint8, or float between 0 and 1, got"):
            rgb_image(image, "it")
    with RewardClient(url) as client:
        good, other = (client.begin(task=EPISODE.task, fps=EPISODE.fps) for _ in range(2))
        results = client.step_all([Observation(good, {TOP: IMAGE}, STATE), Observation(other, {TOP: image}, STATE)])
        later = waited(client, client.relabel({TOP: image[None]}, STATE[None], task=EPISODE.task, fps=EPISODE.fps))
        client.end(good)
        client.end(other)
    assert results[0].reason == ""
    for result in (results[1], *later):
        assert (result.reason == "") is is_image
        assert is_image or f"the image of camera '{TOP}' should be uint8, or float between 0 and 1" in result.reason


@pytest.mark.parametrize("values", [1.01, -0.01, np.nan, np.inf])
def test_floats_outside_zero_to_one_are_no_image(values: float) -> None:
    with pytest.raises(DataError, match="float between 0 and 1"):
        rgb_image(np.full((8, 8, 3), values, np.float32), "it")


def test_grey_and_alpha_are_one_rule_for_arrays_and_pngs() -> None:
    rng = np.random.default_rng(0)
    grey, alpha = rng.integers(0, 256, (9, 10), np.uint8), rng.integers(0, 256, (9, 10, 4), np.uint8)
    threefold = grey[..., None].repeat(3, -1)
    for image in (grey, grey[..., None], grey[None], threefold, np.moveaxis(threefold, -1, 0)):
        np.testing.assert_array_equal(rgb_image(image, "it"), threefold)
    for image in (alpha, np.moveaxis(alpha, -1, 0), alpha[..., :3]):
        np.testing.assert_array_equal(rgb_image(image, "it"), alpha[..., :3])
    with serving(Mean()) as url, RewardClient(url) as client:
        session = client.begin(task="a", fps=1.0)
        for image in (grey, alpha):
            raw, packed = (client.step(session, {"a": each}) for each in (image, encoded(image)))
            assert raw.progress == packed.progress == pytest.approx(rgb_image(image, "it").mean() / 255)
    for shape in ((8,), (8, 8, 2), (8, 8, 5), (1, 8, 8, 3), (0, 0, 3), ()):
        with pytest.raises(DataError, match=r"should be \(H, W, 3\)"):
            rgb_image(np.zeros(shape, np.uint8), "it")


class Mean:
    """A model whose progress is the mean brightness."""

    def begin(self, *, task: str, fps: float) -> Mean:
        return self

    def hold(self, frames: int) -> None:
        """Needs no frame but the newest."""

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        return [Step(float(next(iter(each.values())).mean()) / 255) for each in frames]


def test_an_own_model_that_returns_no_step() -> None:
    class Bare:
        def reset(self, *, task: str, fps: float) -> None:
            return None

        def step(self, frames: Any, state: Any = None) -> float:
            return 0.5

    sessions = Sessions(Bare())
    (result,) = sessions.advance([Observation(sessions.begin(task="a", fps=1.0), {"a": IMAGE})])
    assert result.reason == "the model answered float, not a milepost.core.Step"


def test_images_keep_their_size_in_an_attempt_and_show_something(url: str) -> None:
    """A change of size has a reason and changes nothing, whatever the model; an image of less than 8 pixels a side is none."""
    for model in (tiny_sarm(), Mean()):
        sessions, large = Sessions(model), IMAGE.repeat(2, 0).repeat(2, 1)
        name = sessions.begin(task=EPISODE.task, fps=EPISODE.fps)
        small = sessions.advance([Observation(name, {TOP: IMAGE[:7]}, STATE)])[0]
        assert f"the image of camera '{TOP}' is 32 x 7: a side has at least 8 pixels" in small.reason
        first, changed, after = sessions.advance([
            Observation(name, {TOP: image}, STATE) for image in (IMAGE, np.moveaxis(large, -1, 0), np.moveaxis(IMAGE, -1, 0))
        ])  # fmt: skip
        assert (first.reason, after.reason) == ("", "")
        assert "is 64 x 64, and the attempt began with 32 x 32" in changed.reason
        assert math.isnan(changed.progress)
        sessions.begin(task=EPISODE.task, fps=EPISODE.fps, session=name)
        assert sessions.advance([Observation(name, {TOP: large}, STATE)])[0].reason == ""
    with RewardClient(url) as client:
        session = client.begin(task=EPISODE.task, fps=EPISODE.fps)
        results = [client.step(session, {TOP: image}, STATE) for image in (IMAGE, encoded(large), IMAGE)]
        assert [each.reason == "" for each in results] == [True, False, True]


# Damage


def mutations(whole: bytes, count: int, seed: int, within: tuple[int, int] = (0, 10**9)) -> Iterator[bytes]:
    """Yields damaged copies: bytes changed, left out, doubled, cut off; between two places of `whole`."""
    rng = np.random.default_rng(seed)
    low, high = within[0], min(within[1], len(whole))
    for _ in range(count):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            place, end = sorted(rng.integers(low, high, 2).tolist())
            kind = rng.integers(0, 6)
            if kind == 0:
                del content[place : place + int(rng.integers(1, 9))]
            elif kind == 1:
                content[place:place] = content[place : min(end, place + 40)]
            elif kind == 2:
                del content[max(end, place + 1) :]
            else:
                content[place : place + 1] = bytes([rng.choice(np.frombuffer(b"\x00\xff()[]{}'\",:-9O|<", np.uint8))])
        yield bytes(content)


def npy_of(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_no_damaged_body_is_a_fault_of_the_server(url: str) -> None:
    """/step and /relabel, in either form of a body."""
    whole = pack_observations([Observation("nobody", {TOP: IMAGE}, STATE)])
    episode = pack_episode({TOP: IMAGE[None]}, STATE[None], task=EPISODE.task, fps=1.0)
    seen = set()
    with httpx2.Client(base_url=url) as client:
        for path, body in (("/step", whole), ("/relabel", episode), ("/step", npz_of(whole)), ("/relabel", npz_of(episode))):
            for each in mutations(body, 250, seed=1):
                reply = client.post(path, content=each, headers={"content-type": body_type(body)})
                seen.add(reply.status_code)
                assert reply.status_code in (200, 202, 400), (reply.text, each)
    assert {200, 400} <= seen


def npz_of(body: bytes) -> bytes:
    file = io.BytesIO()
    np.savez(file, **load(body))
    return file.getvalue()


def entries(array: bytes) -> bytes:
    file = io.BytesIO()
    request = {"observations": [{"session": "nobody", "cameras": [TOP]}, {"session": "nobody", "cameras": []}]}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("request.npy", npy_of(np.frombuffer(json.dumps(request).encode(), np.uint8)))
        archive.writestr(f"0/{TOP}.npy", array)
    return file.getvalue()


def test_no_damaged_array_is_a_fault_of_the_server(url: str) -> None:
    whole = npy_of(IMAGE)
    with httpx2.Client(base_url=url) as client:
        for each in mutations(whole, 300, seed=2, within=(0, 128)):
            reply = client.post("/step", content=entries(each), headers={"content-type": NPZ})
            assert reply.status_code == 200, (reply.text, each)
            assert len(reply.json()["results"]) == 2


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
def test_no_damaged_file_of_robometers_client_is_a_fault_of_the_server() -> None:
    form = form_of([(np.zeros((2, 8, 8, 3), np.uint8), "visit")])
    ((name, (_, whole, _)),) = form["files"].items()
    with serving(Seer(), cameras=(TOP,)) as url, httpx2.Client(base_url=url) as client:
        for each in mutations(whole, 300, seed=3, within=(0, 128)):
            reply = client.post("/evaluate_batch_npy", data=form["data"], files={name: each})
            assert reply.status_code in (200, 400), (reply.text, each)
        body = client.build_request("POST", "/evaluate_batch_npy", **form)
        content, headers = body.read(), {"content-type": body.headers["content-type"]}
        for each in mutations(content, 150, seed=4):
            assert client.post("/evaluate_batch_npy", content=each, headers=headers).status_code in (200, 400), each
        sample = json.loads(form["data"]["sample_0"])
        sample["trajectory"]["frames_shape"] = [3, 8, 8, 3]
        reply = client.post("/evaluate_batch_npy", data={"sample_0": json.dumps(sample)}, files=form["files"])
        assert "'frames_shape' says [3, 8, 8, 3]" in reply.json()["error"]


def test_arrays_of_many_rows_and_no_bytes_are_refused(url: str) -> None:
    """A header alone can name 10^9 frames: what has no area is refused before anything is counted."""
    for shape, kind in (((10**9, 0, 1, 3), "|u1"), ((10**9, 1, 1, 3), "|V0")):
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
        array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        form = form_of([(np.zeros((2, 8, 8, 3), np.uint8), "visit")])
        files = dict.fromkeys(form["files"], array)
        assert httpx2.post(f"{url}/evaluate_batch_npy", data=form["data"], files=files).status_code == 400
