"""GVL: the order that frames are shown in says nothing, every percentage goes to its own frame, and what is not answered stays unknown."""

import base64
import dataclasses
import io
import json
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import milepost
from milepost.core import ArrayFrames, Episode
from milepost.core.errors import DataError
from milepost.metrics import voc
from milepost.models.gvl.question import percentages, schema
from milepost.testing import CAMERA, chat_server, dot_episodes
from models.test_contract import tiny_gvl


def looked_like(body: dict) -> list[np.ndarray]:
    """The images of a request, in the order they are shown in; the first is the scene at the start."""
    parts = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))) for url in urls]


@contextmanager
def remote(answer, **fields: object):
    """A model behind a server that answers with {frame number: percentage} or words; with the server's requests."""
    with chat_server() as server:

        def text(body: dict) -> str:
            said = answer(looked_like(body)[1:])
            return said if isinstance(said, str) else json.dumps({"frames": [{"frame": n, "completion": p} for n, p in said.items()]})

        server.text = text
        model = milepost.GVLModel(milepost.GVLConfig(vlm_name="tiny", base_url=server.url, fps=5.0, **fields))
        try:
            yield model, server
        finally:
            model.close()


def brightness(frames: list[np.ndarray]) -> dict[int, float]:
    return {number: float(np.clip((frame.mean() - 20) / 2, 0, 100)) for number, frame in enumerate(frames, 1)}


def brighter() -> Episode:
    """An episode that grows brighter with every frame."""
    episode = dot_episodes(1)[0]
    shades = (20 + 6 * np.arange(episode.length)).astype(np.uint8)
    frames = ArrayFrames(np.broadcast_to(shades[:, None, None, None], (episode.length, 64, 64, 3)).copy())
    return dataclasses.replace(episode, cameras={CAMERA: frames})


def test_a_model_that_sees_is_right_in_any_order() -> None:
    episode = brighter()
    for seed in range(3):
        with remote(brightness, seed=seed) as (model, server):
            curve = model.predict(episode).main
            orders = [round(frame.mean()) for frame in looked_like(server.bodies[0])[1:]]
        assert orders != sorted(orders)
        np.testing.assert_allclose(curve.value, 3 * np.arange(episode.length) / 100, atol=0.02)


def test_a_model_that_counts_gets_nothing_from_it() -> None:
    episode = dot_episodes(1)[0]
    with remote(lambda frames: {n: 100 * n / len(frames) for n in range(1, len(frames) + 1)}, shuffles=16) as (model, server):
        curve = model.predict(episode).main
        assert len(server.bodies) == 16
    assert abs(voc(curve.signals["percent"].values[~np.isnan(curve.signals["percent"].values)])) < 0.75
    assert np.nanmean(curve.signals["disagreement"].values) > 15


def test_what_is_not_answered_stays_unknown_and_moves_no_other() -> None:
    with remote(lambda frames: {n: p for n, p in brightness(frames).items() if n != 2}) as (model, _):
        curve = model.predict(brighter()).main
        words = model.close()
    percent, answered = curve.signals["percent"].values, curve.signals["answered"].values
    shown = ~np.isnan(answered)
    assert (answered[shown] == 0).sum() == 1
    assert np.isnan(percent[shown]).sum() == 1
    assert re.search(r"frames with a percentage: (\d+) of (\d+) shown", words[0])
    assert np.isnan(curve.value).sum() == 3  # from the frame before it to the one after it


def test_no_answer_at_all_is_an_unknown_curve() -> None:
    with remote(lambda frames: "I cannot see any robot.") as (model, _):
        assert np.isnan(model.predict(dot_episodes(1)[0]).value).all()
        assert model.close()[0].endswith('shown (0%); an answer without any is "I cannot see any robot."')


def test_the_server_gets_the_form_with_the_numbers_of_the_frames() -> None:
    with remote(brightness) as (model, server):
        model.predict(dot_episodes(1)[0])
        form = server.bodies[0]["response_format"]["json_schema"]
    shown = len(looked_like(server.bodies[0])) - 1
    assert form["schema"] == schema(shown)
    assert form["schema"]["properties"]["frames"]["items"]["properties"]["frame"]["enum"] == list(range(1, shown + 1))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('[{"frame_number": 1, "percentage": "10%"}, {"frame_number": 2, "percentage": 20.5}]', [10.0, 20.5]),
        ('```json\n{"frames": [{"frame": "Frame 2", "completion": 30}]}\n```', [None, 30.0]),
        ('{"frames": [{"frame": 1, "completion": 10}, {"frame": 1, "completion": 90}]}', [None, None]),
        ('{"frames": [{"frame": 1, "completion": 10}, {"frame": 1, "completion": 10}, {"frame": 2, "completion": 130}]}', [10.0, None]),
        ('{"frames": [{"frame": 3, "completion": 10}, {"frame": 1.5, "completion": 10}, {"frame": true, "completion": 1}]}', [None, None]),
        ('{"frames": [{"frame": 1, "completion": 5}, {"frame": 2, "compl', [5.0, None]),
        ('{"frames": [{"frame": 1, "completion": NaN}, {"frame": 2, "completion": null}]}', [None, None]),
        ("", [None, None]),
    ],
)
def test_answers_as_models_write_them(text: str, answer: list[float | None]) -> None:
    np.testing.assert_array_equal(percentages(text, 2), [np.nan if each is None else each for each in answer])


def test_long_episodes_are_shown_more_coarsely() -> None:
    frames, times = tiny_gvl(max_frames=5).looked_at(300, 10.0)
    assert frames.tolist() == [0, 75, 150, 224, 299]
    np.testing.assert_allclose(times, frames / 10)


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny_gvl(shuffles=2)
    model.save_pretrained(tmp_path / "model")
    again = milepost.load_model(tmp_path / "model")
    assert isinstance(again, milepost.GVLModel)
    assert again.identity() == model.identity()


@pytest.mark.parametrize("fields", [{"shuffles": 0}, {"max_frames": 1}, {"max_answer_tokens": 0}, {"shuffles": 1.5}])
def test_values_that_cannot_be(fields: dict) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(fields))):
        milepost.GVLConfig(**fields)


def test_prefixes_mean_nothing_here() -> None:
    with pytest.raises(DataError, match="max_frames"):
        tiny_gvl().predict(dot_episodes(1)[0], num_prefixes=3)
