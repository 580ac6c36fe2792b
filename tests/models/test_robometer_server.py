"""Robometer behind a vLLM pooling server: the curve is the local one, and what a server answers wrongly is said in words."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import milepost
from milepost.core.errors import DataError, UnreadableError
from milepost.core.types import ArrayFrames
from milepost.testing import Fault, chat_server, dot_episodes
from models.test_contract import robometer_folder
from models.test_contract import tiny_robometer as local
from robometer_server import PooledRobometer

PROTOCOLS: list[dict[str, Any]] = [{"frame_protocol": "published"}, {"frame_protocol": "lerobot"}, {"fps": 5.0}]


@functools.cache
def pooled() -> PooledRobometer:
    return PooledRobometer(robometer_folder())


def served(server: Any, **fields: Any) -> Any:
    model = milepost.RobometerModel(milepost.RobometerConfig(vlm_name="tiny", base_url=server.url, **fields))
    return contextlib.closing(model)


@contextlib.contextmanager
def answering(pooling: Callable[..., Any] | None, **settings: Any) -> Iterator[Any]:
    with chat_server(**settings) as server:
        server.pooling = pooling
        yield server


def noise(rng: np.random.Generator) -> milepost.Episode:
    """Returns an episode of 20 frames of 80 x 112, which are shown as 64 x 96 or smaller."""
    frames = rng.integers(0, 256, (20, 10, 14, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return milepost.Episode(
        0, 0, "pick up the cube", 10.0, 20, np.zeros((20, 1), np.float32), cameras={"observation.images.top": ArrayFrames(frames)}
    )


@pytest.mark.parametrize("fields", PROTOCOLS)
@pytest.mark.parametrize("max_pixels", [None, 4096])
def test_the_curve_is_the_local_one(rng, fields: dict[str, Any], max_pixels: int | None) -> None:
    episode = noise(rng)
    mine = local(max_pixels=max_pixels, **fields).predict(episode).main
    with answering(pooled()) as server, served(server, max_pixels=max_pixels, **fields) as model:
        theirs = model.predict(episode).main
        assert len(server.bodies) == model.questions(episode, None)
    np.testing.assert_allclose(theirs.value, mine.value, atol=1e-5)
    for name, signal in mine.signals.items():
        np.testing.assert_allclose(theirs.signals[name].values, signal.values, atol=1e-5)
    assert np.ptp(mine.value) > 1e-3


def test_one_answer_tells_about_the_beginnings_too() -> None:
    episode = dot_episodes(1)[0]
    with answering(pooled()) as server, served(server, frame_protocol="published") as model:
        model.predict(episode)
        [body] = server.bodies
    assert set(body) == {"model", "messages", "task", "use_activation", "chat_template_kwargs", "mm_processor_kwargs"}
    assert body["chat_template_kwargs"]["add_vision_id"] is True
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["text", *["image_url", "text"] * 8]
    assert body["messages"][0]["content"][2]["text"] == "<|prog_token|>"
    assert episode.task in body["messages"][0]["content"][0]["text"]


def test_rows_before_the_marks_are_left_out() -> None:
    episode = dot_episodes(1)[0]

    def more(body: dict[str, Any]) -> tuple[list[Any], int]:
        rows, tokens = pooled()(body)
        return [[9.0] * 13, *rows], tokens

    with answering(more) as server, served(server, frame_protocol="published") as model:
        theirs = model.predict(episode).value
    np.testing.assert_allclose(theirs, local(frame_protocol="published").predict(episode).value, atol=1e-5)


def rows_of(change: Callable[[list[Any]], list[Any]]) -> Callable[[dict[str, Any]], tuple[list[Any], int]]:
    def pooling(body: dict[str, Any]) -> tuple[list[Any], int]:
        count = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
        return change([[0.5 * number - 2.0 for number in range(13)] for _ in range(count)]), 1000

    return pooling


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1:], "answered with 7 rows about 8 images"),
        (lambda rows: [], "without rows of numbers"),
        (lambda rows: None, "without rows of numbers"),
        (lambda rows: "AAAA", "without rows of numbers"),
        (lambda rows: [row[:12] for row in rows], "a row of 12 numbers, 13 at least"),
        (lambda rows: [0.5] * 8, "a row of no list"),
        (lambda rows: [[float("nan"), *row[1:]] for row in rows], "NaN"),
        (lambda rows: [["1", *row[1:]] for row in rows], "finite number"),
        (lambda rows: [[True, *row[1:]] for row in rows], "finite number"),
        (lambda rows: [[1 / 13] * 13 for _ in rows], "probabilities, all from 0 to 1: it ignores use_activation"),
        (lambda rows: (1 / (1 + np.exp(-np.asarray(rows)))).tolist(), "probabilities, all from 0 to 1"),
        (lambda rows: rows * 200, "a row for each token"),
    ],
)
def test_an_answer_of_another_form_is_refused(change: Callable[[list[Any]], list[Any]], words: str) -> None:
    with (
        answering(rows_of(change)) as server,
        served(server, frame_protocol="published") as model,
        pytest.raises(DataError, match=words) as caught,
    ):
        model.predict(dot_episodes(1)[0])
    assert server.url.removesuffix("/v1") in str(caught.value)


def test_a_row_for_each_token_is_refused() -> None:
    with answering(PooledRobometer(robometer_folder(), every_token=True)) as server, served(server, fps=5.0) as model:
        with pytest.raises(DataError, match=r"a row for each token.*STEP"):
            model.predict(dot_episodes(1)[0])
        server.usage = False
        with pytest.raises(DataError, match="no count of tokens"):
            model.predict(dot_episodes(1)[0])


def test_a_server_that_only_chats_is_told_apart() -> None:
    with answering(None) as server, served(server) as model:
        with pytest.raises(DataError, match="--runner pooling") as caught:
            model.predict(dot_episodes(1)[0])
        assert not isinstance(caught.value, UnreadableError)  # every episode would get it
        assert "/v1/pooling was tried too" in str(caught.value)


def test_a_server_without_the_task_is_told_apart() -> None:
    script = lambda number, body: Fault(400, "Unsupported task: 'token_classify'. Supported tasks: ['embed']")  # noqa: E731
    with (
        answering(pooled(), script=script) as server,
        served(server) as model,
        pytest.raises(DataError, match=r"Supported tasks.*--runner pooling"),
    ):
        model.predict(dot_episodes(1)[0])


def test_the_place_beside_the_version_is_asked_first_and_the_one_in_it_next() -> None:
    assert milepost.ServerConfig("http://a/x/v1/", "m").pooling_urls == ("http://a/x/pooling", "http://a/x/v1/pooling")
    assert milepost.ServerConfig("http://a", "m").pooling_urls == ("http://a/pooling", "http://a/v1/pooling")


def test_a_busy_server_is_asked_again() -> None:
    episode = dot_episodes(1)[0]
    script = lambda number, body: Fault(503) if number == 0 else None  # noqa: E731
    with answering(pooled(), script=script) as server, served(server, frame_protocol="published") as model:
        model.predict(episode)
        lines = model.close()
    assert len(server.bodies) == 2
    assert lines[0].startswith("server:")
    assert "1 answers, 2 requests, 1 retries" in lines[0]


def test_the_key_goes_to_the_server_and_into_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_KEY", "secret-1")
    with answering(pooled(), key="secret-1") as server, served(server, api_key_env="POOL_KEY", frame_protocol="published") as model:
        model.predict(dot_episodes(1)[0])
        assert server.authorizations == ["Bearer secret-1"]
    with (
        answering(pooled(), key="other") as server,
        served(server, api_key_env="POOL_KEY") as model,
        pytest.raises(DataError, match=r"\$POOL_KEY, which is set") as caught,
    ):
        model.predict(dot_episodes(1)[0])
    assert "secret-1" not in str(caught.value)


def test_what_is_only_for_a_model_here_or_tuned_is_refused() -> None:
    with pytest.raises(ValueError, match="base_url"):
        milepost.RobometerConfig(base_url="http://localhost:1/v1", tuned="heads")
    with pytest.raises(ValueError, match="quantization"):
        milepost.RobometerConfig(base_url="http://localhost:1/v1", quantization="4bit")


def test_the_command_line_asks_the_server(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from milepost.cli.entry import main
    from milepost.testing import write_example

    write_example(tmp_path / "dots")
    with answering(pooled()) as server:
        arguments = ["label", str(tmp_path / "dots"), "--model", "robometer", "--vlm-name", "tiny", "--base-url", server.url]
        assert main([*arguments, "--frame-protocol", "published"]) in (0, None)
        assert len(server.bodies) == 6
    assert (tmp_path / "dots" / "robometer_progress.parquet").exists()
    assert "server: 6 answers" in " ".join(capsys.readouterr())
    assert json.dumps(server.bodies[0]).count("prog_token") == 8
