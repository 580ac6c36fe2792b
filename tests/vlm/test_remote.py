"""A real Qwen3-VL behind a real HTTP server: the numbers are a local engine's on the same frames, and nothing is ever given for one."""

from __future__ import annotations

import base64
import io
import math
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image
import pytest

from milepost.core.errors import DataError
from milepost.testing import ChatServer, Fault, Script, chat_server
from milepost.vlm.engine import Engine
from milepost.vlm.frame_parts import text_part
from milepost.vlm.loading import load_engine
from milepost.vlm.patches import Resolution
from milepost.vlm.prompt import Prompt
from milepost.vlm.remote import RemoteEngine, RemoteScores
from milepost.vlm.server import ChatClient
from milepost.vlm.transport import MalformedError, NoLogprobsError, RefusedError, ServerConfig, UnfinishedTurnError, UnreachableError
from qwen_server import QwenModel

TASKS = ["pick up the hammer and drive the nail into the wall", "slide the window open"]
TIMES_S = [0.0, 0.5, 1.25, 2.0, 2.9, 3.3]
PREFIXES = [5, 1, 2, 6]
ALL = 437
"""Tokens of the vocabulary."""


@pytest.fixture(autouse=True)
def no_key(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def local(folder) -> Engine:
    return load_engine(folder)


@pytest.fixture
def model(local) -> Callable[..., QwenModel]:
    return lambda **settings: QwenModel(local.networks.model, local.tokenizer, local.processor, **settings)


@pytest.fixture
def whole(model) -> Iterator[ChatServer]:
    """Lists every token it knows, if asked to."""
    with chat_server(model=model(), max_logprobs=ALL) as server:
        yield server


@pytest.fixture
def frames(rng) -> np.ndarray:
    return rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8).repeat(16, 1).repeat(20, 2)  # 64 x 100


def remote(server: ChatServer, *, prompt: Prompt | None = None, encoding: str = "png", **settings) -> RemoteEngine:
    settings = {"timeout_s": 60.0, "backoff_s": 0.001, "top_logprobs": ALL, **settings}
    return RemoteEngine(ServerConfig(server.url, "tiny", **settings), prompt=prompt, encoding=encoding)


def truth(local: Engine, frames: np.ndarray, *, prompt: Prompt | None = None, resolution: Resolution | None = None, **asked) -> np.ndarray:
    """The engine's own numbers, without HTTP: a video that shows every frame twice, at its time."""
    local = local.with_prompt(prompt or Prompt())
    lengths = [2 * n for n in asked.pop("prefixes", PREFIXES)]
    clip = local.clip(frames.repeat(2, 0), times_s=np.repeat(TIMES_S[: len(frames)], 2).tolist(), resolution=resolution)
    return local.score(clip, **{"instructions": TASKS, **asked}, prefixes=lengths)


# The numbers


@pytest.mark.parametrize("resolution", [None, Resolution(size=(32, 64)), Resolution(max_pixels=5 * 32 * 32)])
@pytest.mark.parametrize("chat", [False, True])
def test_numbers_are_the_local_engines(chat, resolution, whole, local, frames):
    prompt = Prompt(chat_template=chat)
    with remote(whole, prompt=prompt) as engine:
        said = engine.ask(engine.clip(frames, times_s=TIMES_S, resolution=resolution), instructions=TASKS, prefixes=PREFIXES)
    true = truth(local, frames, prompt=prompt, resolution=resolution)
    assert said.logprob.shape == (2, 4, 2)
    assert said.logprob.dtype == said.bound.dtype == np.float32
    np.testing.assert_allclose(said.logprob, true, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(said.bound, said.logprob)
    assert said.unlisted == 0
    assert true.std((0, 1)).min() > 0.01  # no two questions can be mistaken for each other


def test_jpeg_is_what_the_model_sees_then(whole, local, frames):
    size = Resolution(size=(64, 96))
    with remote(whole, encoding="jpeg") as engine:
        clip = engine.clip(frames, times_s=TIMES_S, resolution=size)
        said = engine.score(clip, instructions=TASKS, prefixes=PREFIXES)
    longest = max((body["messages"][0]["content"] for body in whole.bodies), key=len)
    urls = [part["image_url"]["url"] for part in longest if part["type"] == "image_url"]
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
    sent = np.stack([np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls])
    np.testing.assert_allclose(said, truth(local, sent, resolution=size), rtol=0, atol=1e-5)
    assert np.abs(said - truth(local, frames, resolution=size)).max() > 1e-5


@pytest.mark.parametrize("listed_most", [20, 100])
@pytest.mark.parametrize("chat", [False, True])
def test_what_is_not_listed_has_a_bound_that_holds(chat, listed_most, model, local, frames):
    words = sorted({name.strip() for name in model().names if name[:1] == " " and name.strip().isalpha()})
    words = [word for word in words if len(local.tokenizer.encode(("" if chat else " ") + word)) == 1]
    prompt = Prompt(chat_template=chat)
    with chat_server(model=model(), max_logprobs=listed_most) as server, remote(server, prompt=prompt, top_logprobs=100) as engine:
        said = engine.ask(engine.clip(frames, times_s=TIMES_S), instructions=TASKS, answers=words, prefixes=PREFIXES)
    true = truth(local, frames, prompt=prompt, answers=words)
    listed = ~np.isnan(said.logprob)
    assert (0 if listed_most == 20 else 50) < listed.sum() < listed.size - 20
    assert said.unlisted == (~listed).sum()
    np.testing.assert_allclose(said.logprob[listed], true[listed], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(said.bound[listed], said.logprob[listed])
    assert (true[~listed] <= said.bound[~listed] + 1e-6).all()  # the two forwards differ by this much
    assert (said.bound[~listed] < 0).all()


def test_a_server_that_names_tokens_as_its_vocabulary_does(model, local, frames):
    with chat_server(model=model(raw=True), max_logprobs=ALL) as server, remote(server) as engine:
        said = engine.score(engine.clip(frames, times_s=TIMES_S), instructions=TASKS, prefixes=PREFIXES)
    np.testing.assert_allclose(said, truth(local, frames), rtol=0, atol=1e-5)


def test_a_space_at_the_end_would_be_another_prompt(whole, local, frames):
    """Why the answer is " True" behind "is:", and not "True" behind "is: "."""
    spaced = Prompt(template="{instruction} Is it done? ")
    true = truth(local, frames, prompt=spaced, instructions=TASKS[:1], prefixes=[2])
    with remote(whole, prompt=spaced) as engine:
        clip = engine.clip(frames, times_s=TIMES_S)
        np.testing.assert_allclose(engine.score(clip, instructions=TASKS[:1], prefixes=[2]), true, rtol=0, atol=1e-5)
        (message,) = whole.bodies[-1]["messages"]
    assert message["content"][-1] == text_part(f"{spaced.prefix}{TASKS[0]} Is it done?")
    message["content"][-1] = text_part(message["content"][-1]["text"] + " ")
    with ChatClient(ServerConfig(whole.url, "tiny", top_logprobs=ALL)) as server:
        (said,) = server.next_token([[message]], answers=["True", " True"], unfinished_turn=True)
    assert min(abs(said[answer].logprob - true[0, 0, 0]) for answer in ("True", " True")) > 0.01


def test_what_is_sent(whole, frames):
    with remote(whole) as engine:
        engine.score(engine.clip(frames, times_s=TIMES_S, resolution=Resolution(max_pixels=2048)), instructions=TASKS[:1], prefixes=[3])
        assert (engine.name, engine.commit, engine.prompt) == ("tiny", "", Prompt())
    (message,) = whole.bodies[-1]["messages"]
    assert [part.get("text") for part in message["content"]] == [
        *["<0.0 seconds>", None, "<0.5 seconds>", None, "<1.2 seconds>", None],
        f"The above video shows a robot manipulation trajectory that completes the following task: {TASKS[0]} "
        "Decide whether the above statement is True or not. The answer is:",
    ]
    assert {part["image_url"]["url"][:22] for part in message["content"] if "image_url" in part} == {"data:image/png;base64,"}
    _, images = whole.model.rendered(whole.bodies[-1])
    assert {image.shape for image in images} == {(32, 32, 3)}


def test_one_request_for_each_cell_in_order_and_counted(whole, frames):
    seen: list[tuple[int, int]] = []
    with remote(whole, price_per_million=(2.0, 10.0), concurrency=1) as engine:
        clip = engine.clip(frames, fps=2.0)
        engine.ask(clip, instructions=TASKS, prefixes=PREFIXES, on_progress=lambda done, total: seen.append((done, total)))
        usage = engine.usage
    lengths = [(len(body["messages"][0]["content"]) - 1) // 2 for body in whole.bodies]
    assert lengths == [0, 0, 1, 1, 2, 2, 5, 5, 6, 6]  # two to see whether the turn stays open; then what a prefix cache likes
    assert seen == [(done, 8) for done in range(1, 9)]
    tokens = sum(map(len, whole.model.seen))
    assert (usage.requests, usage.answers, usage.retries, usage.prompt_tokens, usage.completion_tokens) == (10, 10, 0, tokens, 10)
    assert usage.cost == pytest.approx((2 * tokens + 100) / 1e6)
    assert "a second" in str(usage)
    assert "cost" in str(usage)


def test_every_prefix_is_the_default_and_none_is_no_request(whole, local, frames):
    with remote(whole, prompt=Prompt(chat_template=True)) as engine:
        clip = engine.clip(frames[:3], times_s=TIMES_S[:3])
        said = engine.score(clip, instructions=TASKS)
        true = truth(local, frames[:3], prompt=Prompt(chat_template=True), prefixes=[1, 2, 3])
        np.testing.assert_allclose(said, true, rtol=0, atol=1e-5)
        before = len(whole.bodies)
        assert engine.score(clip, instructions=TASKS, prefixes=[]).shape == (2, 0, 2)
        assert len(whole.bodies) == before


def test_requests_are_parallel_and_bounded(model, local, frames):
    prompt = Prompt(chat_template=True)
    with chat_server(model=model(), max_logprobs=ALL, rendezvous=3) as server:  # nobody is answered before three are here
        with remote(server, prompt=prompt, concurrency=3) as engine:
            clip = engine.clip(frames, times_s=TIMES_S)
            said = engine.score(clip, instructions=[*TASKS, "wave"], prefixes=PREFIXES)
        assert server.most == server.connections == 3
    np.testing.assert_allclose(said, truth(local, frames, prompt=prompt, instructions=[*TASKS, "wave"]), rtol=0, atol=1e-5)


# Turns that are not left open


@pytest.mark.parametrize(
    ("ignored", "script", "usage", "said"),
    [
        (("continue_final_message", "add_generation_prompt"), None, True, r"ignores continue_final_message: 11 tokens .*, 11 with it left"),
        (("continue_final_message",), None, True, r"ignores continue_final_message: \d+ tokens"),
        (
            (),
            lambda n, body: Fault(400, "Unrecognized argument") if "add_generation_prompt" in body else None,
            True,
            "Unrecognized argument",
        ),
        ((), lambda n, body: Fault(422, "extra inputs") if "continue_final_message" in body else None, True, "extra inputs"),
        ((), None, False, "counts no tokens"),
    ],
)
def test_a_server_that_closes_the_turn_is_found_out(ignored, script, usage, said, model, local, frames):
    with chat_server(model=model(ignored=ignored), script=script, max_logprobs=ALL) as server, remote(server) as engine:
        server.usage = usage
        clip = engine.clip(frames, times_s=TIMES_S)
        for _ in range(2):  # and is not believed the second time either
            with pytest.raises(UnfinishedTurnError, match=said) as caught:
                engine.score(clip, instructions=TASKS, prefixes=PREFIXES)
        assert "add_chat_template=True" in str(caught.value)
        assert server.url in str(caught.value)
        assert all(len(body["messages"][0]["content"]) == 1 for body in server.bodies)  # not one picture was sent
        if not script:
            engine.prompt = Prompt(chat_template=True)
            closed = engine.score(clip, instructions=TASKS, prefixes=PREFIXES)
            np.testing.assert_allclose(closed, truth(local, frames, prompt=engine.prompt), rtol=0, atol=1e-5)


def test_an_open_turn_is_asked_for_once(whole, frames):
    with remote(whole) as engine:
        clip = engine.clip(frames[:1], fps=2.0)
        for _ in range(3):
            engine.score(clip, instructions=TASKS[:1])
    assert [len(body["messages"][0]["content"]) for body in whole.bodies] == [1, 1, 3, 3, 3]
    assert whole.bodies[0]["messages"] == whole.bodies[1]["messages"]


def test_no_permission_is_not_blamed_on_the_turn(model, frames):
    with chat_server(model=model(), key="sk-another") as server, remote(server) as engine:
        with pytest.raises(RefusedError, match=r"401 .*OPENAI_API_KEY, which is not set"):
            engine.score(engine.clip(frames, fps=2.0), instructions=TASKS)
        assert len(server.bodies) == 1


# What goes wrong


def on(**faults: Fault) -> Script:
    """request_3=Fault(...): what happens to request number 3."""
    return lambda number, body: faults.get(f"request_{number}")


NEVER = threading.Event()
PASSING = {
    "500": Fault(500, "out of cuda"),
    "503": Fault(503, "loading"),
    "429": Fault(429, "slow down", {"Retry-After": "0.2"}),
    "slow": Fault(wait=NEVER),
    "cut": Fault(cut=40),
    "cut before a byte": Fault(cut=0),
    "malformed": Fault(raw='{"choices": [{"logp'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=list(PASSING))
def test_what_passes_is_tried_again(fault, model, local, frames):
    script = on(request_0=fault, request_2=fault, request_5=fault)  # the check of the turn among them
    timeout_s = 2.0 if fault.wait else 60.0
    with chat_server(model=model(), max_logprobs=ALL, script=script) as server, remote(server, timeout_s=timeout_s) as engine:
        said = engine.ask(engine.clip(frames, times_s=TIMES_S), instructions=TASKS, prefixes=PREFIXES)
        usage = engine.usage
    np.testing.assert_allclose(said.logprob, truth(local, frames), rtol=0, atol=1e-5)
    assert (usage.retries, usage.answers, usage.requests) == (3, 10, 13)
    if fault.status == 429:
        assert usage.waited_s >= 0.6


LASTING = {
    "500": (PASSING["500"], UnreachableError, r"500 .*out of cuda \(2 tries\)"),
    "429": (Fault(429, "slow down", {"Retry-After": "3600"}), UnreachableError, r"429 .*slow down \(it asks to wait 3600 s\)"),
    "slow": (PASSING["slow"], UnreachableError, r"no answer within 2 s \(2 tries\)"),
    "cut": (PASSING["cut"], UnreachableError, r"\(2 tries\)"),
    "malformed": (PASSING["malformed"], MalformedError, "not JSON"),
    "no log-probabilities": (Fault(raw='{"choices": [{"message": {"content": "True"}}]}'), NoLogprobsError, "without log-probabilities"),
    "refused": (Fault(400, "at most 4 images"), RefusedError, "at most 4 images"),
}


@pytest.mark.parametrize(("fault", "error", "said"), LASTING.values(), ids=list(LASTING))
def test_what_lasts_ends_the_call_and_has_a_name(fault, error, said, model, local, frames):
    """One question of eight is never answered: no number is given, nothing hangs, and the next clip can be asked about."""
    prompt, timeout_s = Prompt(chat_template=True), 2.0 if fault.wait else 60.0

    def script(number, body):
        content = body["messages"][0]["content"]
        return fault if len(content) == 5 and "window" in content[-1]["text"] else None

    with (
        chat_server(model=model(), max_logprobs=ALL, script=script) as server,
        remote(server, prompt=prompt, retries=1, timeout_s=timeout_s) as engine,
    ):
        clip = engine.clip(frames, times_s=TIMES_S)
        before = time.perf_counter()
        with pytest.raises(error, match=said) as caught:
            engine.score(clip, instructions=TASKS, prefixes=PREFIXES)
        assert time.perf_counter() - before < 20
        assert isinstance(caught.value, DataError)
        assert server.url in str(caught.value)
        server.script = None
        again = engine.score(clip, instructions=TASKS, prefixes=PREFIXES)
    np.testing.assert_allclose(again, truth(local, frames, prompt=prompt), rtol=0, atol=1e-5)


def test_nobody_there(model, frames):
    with chat_server(model=model()) as server:
        engine = remote(server, retries=1)
    with engine, pytest.raises(UnreachableError, match=r"\(2 tries\)"):
        engine.score(engine.clip(frames, fps=2.0), instructions=TASKS)


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"instructions": [""]}, "instruction is empty"),
        ({"instructions": []}, "no instruction"),
        ({"instructions": "open"}, "lists of texts"),
        ({"instructions": ["open <|im_end|> it"]}, r"holds <\|im_end\|>"),
        ({"answers": []}, "no answers"),
        ({"answers": [" True"]}, "without spaces around it, not ' True'"),
        ({"answers": [""]}, "without spaces"),
        ({"answers": ["True", "True"]}, "distinct"),
        ({"prefixes": [0]}, "lengths from 1 to"),
        ({"prefixes": [7]}, "lengths from 1 to"),
    ],
)
def test_questions_that_make_no_sense(asked, said, whole, frames):
    with remote(whole) as engine, pytest.raises(DataError, match=said):
        engine.score(engine.clip(frames, fps=2.0), **{"instructions": TASKS, **asked})
    assert not whole.bodies


def test_other_things_that_cannot_be(whole, frames):
    with remote(whole) as engine:
        with pytest.raises(DataError, match="one size; the rule 'lerobot'"):
            engine.clip(frames, fps=2.0, resolution=Resolution("lerobot"))
        with pytest.raises(DataError, match="clip is empty"):
            engine.clip(frames[:0], fps=2.0)
        with pytest.raises(DataError, match="too narrow"):
            engine.score(engine.clip(frames[:, :1].repeat(3, 2), fps=2.0), instructions=TASKS)
        with pytest.raises(DataError, match="cannot be streamed"):
            engine.stream(instructions=TASKS, fps=2.0)
        engine.prompt = Prompt(template="{instruction} Is it done?\n")
        with pytest.raises(DataError, match=r"ends in '\\n', which servers cut off"):
            engine.score(engine.clip(frames, fps=2.0), instructions=TASKS)
    engine.prompt = Prompt()
    with pytest.raises(DataError, match="closed"):
        engine.score(engine.clip(frames, fps=2.0), instructions=["wave"])
    assert not whole.bodies


def test_a_bound_is_never_lowered_by_rounding(whole, frames):
    """A double that float32 would round down stays above."""
    third = math.log(1 / 3)
    raw = '{"usage": {"prompt_tokens": %d}, "choices": [{"logprobs": {"content": [{"token": "x", "logprob": %r}]}}]}'
    whole.script = lambda number, body: Fault(raw=raw % (3 - number, third))
    with remote(whole) as engine:
        said = engine.ask(engine.clip(frames[:1], fps=2.0), instructions=TASKS[:1])
    assert isinstance(said, RemoteScores)
    assert said.unlisted == 2
    assert all(third <= float(bound) < third + 1e-6 for bound in said.bound.flat)
