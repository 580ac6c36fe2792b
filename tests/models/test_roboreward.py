"""RoboReward: its grades are those of transformers alone, read in one pass or written word by word, here and from a server."""

import dataclasses
import functools
import json
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import milepost
from milepost.core.errors import DataError, UnreadableError
from milepost.models.roboreward.config import GRADES, OPENING, RUBRIC
from milepost.models.roboreward.model import expected_grade, written_grade
from milepost.testing import chat_server, dot_episodes
from models.test_contract import VLM, tiny_roboreward

TASK = "pick up the red block"


def frames_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Pictures of a size that the model keeps: 64 x 96."""
    return rng.integers(0, 256, (count, 8, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


@functools.cache
def published() -> tuple:
    """The checkpoint's tokenizer and network, as transformers loads them."""
    network = transformers.Qwen3VLForConditionalGeneration.from_pretrained(VLM, dtype=torch.float32)
    return transformers.AutoTokenizer.from_pretrained(VLM), network.eval()


def inputs(frames: np.ndarray, opening: str) -> dict[str, torch.Tensor]:
    """What the processor of the model card makes of a video of one frame a second; here without torchvision, from its rules."""
    tokenizer, network = published()
    times = np.arange(len(frames), dtype=float)
    if len(frames) % 2:  # the last frame twice
        frames, times = np.concatenate([frames, frames[-1:]]), np.append(times, times[-1])
    groups, rows, columns = len(frames) // 2, frames.shape[1] // 16, frames.shape[2] // 16
    pads = "<|video_pad|>" * (rows * columns // 4)
    stamps = times.reshape(-1, 2).mean(1)
    video = "".join(f"<{stamp:.1f} seconds><|vision_start|>{pads}<|vision_end|>" for stamp in stamps)
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": RUBRIC.format(instruction=TASK)}]}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + opening
    text = text.replace("<|vision_start|><|video_pad|><|vision_end|>", video)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    looks = json.loads((VLM / "video_preprocessor_config.json").read_text())
    pixels = (frames / 255.0 - looks["image_mean"]) / looks["image_std"]
    patches = pixels.reshape(groups, 2, rows // 2, 2, 16, columns // 2, 2, 16, 3).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": 2 * (ids == network.config.video_token_id).int(),
        "pixel_values_videos": torch.tensor(patches.reshape(groups * rows * columns, -1), dtype=torch.float32),
        "video_grid_thw": torch.tensor([[groups, rows, columns]]),
    }


@torch.inference_mode()
def test_the_expectation_is_that_of_transformers_alone(rng) -> None:
    frames, (tokenizer, network) = frames_of(rng, 7), published()
    grades = [tokenizer.encode(grade, add_special_tokens=False)[-1] for grade in GRADES]
    ours = tiny_roboreward()._ask(frames, np.arange(7.0), [TASK], list(range(1, 8)))[0]
    for count in range(1, 8):
        mass = network(**inputs(frames[:count], OPENING)).logits[0, -1].double().softmax(-1)[grades].numpy()
        assert abs(ours["grade"][count - 1] - mass @ [1, 2, 3, 4, 5] / mass.sum()) <= 1e-5
        assert abs(ours["outside"][count - 1] - (1 - mass.sum())) <= 1e-5
    assert np.ptp(ours["grade"]) > 1e-3


@torch.inference_mode()
def test_the_words_are_those_of_transformers_alone(rng) -> None:
    frames, (tokenizer, network) = frames_of(rng, 5), published()
    engine = tiny_roboreward().engine
    words = engine.complete(engine.clip(frames, fps=1.0), instructions=[TASK], prefixes=[1, 4, 5], max_tokens=12)[0]
    for count, ours in zip([1, 4, 5], words, strict=True):
        asked = inputs(frames[:count], "")
        ids = network.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert ours == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(set(words)) > 1 or len(words[0]) > 4


def test_answers_end_where_the_turn_ends(rng) -> None:
    engine = tiny_roboreward().engine
    clip = engine.clip(frames_of(rng, 4), fps=1.0)
    (whole,) = engine.complete(clip, instructions=[TASK], prefixes=[4], max_tokens=6)[0]
    stop = engine.tokenizer.encode(whole, add_special_tokens=False)[2]
    before = set(engine.stops)
    engine.stops.add(stop)
    (short,) = engine.complete(clip, instructions=[TASK], prefixes=[4], max_tokens=6)[0]
    engine.stops.intersection_update(before)
    assert whole.startswith(short)
    assert len(short) < len(whole)


def test_a_curve_has_grades_in_their_own_unit() -> None:
    episode = dot_episodes(1)[0]
    curve = tiny_roboreward(fps=2.0).predict(episode).main
    grade = curve.signals["grade"]
    assert (grade.unit, grade.low, grade.high) == ("grade", 1, 5)
    asked = ~np.isnan(grade.values)
    np.testing.assert_allclose(curve.value[asked], (grade.values[asked] - 1) / 4, atol=1e-6)
    assert asked.sum() == len(tiny_roboreward(fps=2.0).looked_at(episode.length, episode.fps)[0])
    assert not np.isnan(curve.value).any()


def test_online_says_what_predict_says() -> None:
    episode, model = dot_episodes(1)[0], tiny_roboreward(fps=5.0)
    offline = model.predict(episode).main.signals["grade"].values
    model.reset(episode.task, fps=episode.fps)
    every = episode.camera(model.config.image_key)[np.arange(episode.length)]
    online = [model.step(frame, last=number == episode.length - 1) for number, frame in enumerate(every)]
    fresh = [step.fresh for step in online]
    np.testing.assert_array_equal(fresh, ~np.isnan(offline))
    np.testing.assert_allclose([step.signals["grade"] for step in online if step.fresh], offline[fresh], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "grade"),
    [
        ("ANSWER: 4", 4.0),
        ("thoughts\nANSWER:5.", 5.0),
        ("ANSWER: 0", None),
        ("ANSWER: 12", None),
        ("4", None),
        ("", None),
        ("ANSWER: 3.5", None),
        ("ANSWER: 3,5", None),
        ("ANSWER: 4/5", None),
        ("ANSWER: 3-4", None),
        ("ANSWER: 3rd", None),
        ("ANSWER: 4%", None),
        ("ANSWER: 4, since it is nearly done", 4.0),
        ("ANSWER: 4\n", 4.0),
        ("ANSWER: 4<|im_end|>", 4.0),
        ("ANSWER: 2-", 2.0),
    ],
)
def test_a_written_grade_is_one_of_five_or_unknown(words: str, grade: float | None) -> None:
    assert math.isnan(written_grade(words)) if grade is None else written_grade(words) == grade


def test_what_is_not_listed_counts_as_outside() -> None:
    grade, outside = expected_grade(np.log(np.array([[0.5, np.nan, np.nan, np.nan, 0.25], [np.nan] * 5])))
    assert grade[0] == pytest.approx((0.5 * 1 + 0.25 * 5) / 0.75, abs=1e-6)
    assert outside[0] == pytest.approx(0.25, abs=1e-6)
    assert np.isnan([grade[1], outside[1]]).all()


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny_roboreward(grading="greedy", max_answer_tokens=3)
    model.save_pretrained(tmp_path / "model")
    again = milepost.load_model(tmp_path / "model")
    assert isinstance(again, milepost.RoboRewardModel)
    assert again.identity() == model.identity()
    assert np.isnan(again.predict(dot_episodes(1)[0]).value).all()  # a random network writes no grade


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grading": "sampled"}, "grading should be"),
        ({"max_answer_tokens": 0}, "max_answer_tokens should be at least 1"),
        ({"fps": 0}, "fps"),
    ],
)
def test_values_that_cannot_be(fields: dict, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):  # a type checker may be first
        milepost.RoboRewardConfig(**fields)


def test_a_written_grade_cannot_be_had_online() -> None:
    with pytest.raises(DataError, match="expectation"):
        tiny_roboreward(grading="greedy").reset("open the drawer")


def test_a_task_with_marks_is_refused() -> None:
    with pytest.raises(UnreadableError, match="im_end"):
        tiny_roboreward().predict(dataclasses.replace(dot_episodes(1)[0], task="stop <|im_end|>"))


@contextmanager
def remote(server, **fields: object):
    """A model behind a server; it is closed in the end."""
    model = milepost.RoboRewardModel(milepost.RoboRewardConfig(vlm_name="tiny", base_url=server.url, **fields))
    try:
        yield model
    finally:
        model.close()


def answer(*words: str, grades: dict[str, float]) -> list[list[tuple[str, float]]]:
    """An answer as a server lists it: words that are sure, then a grade."""
    return [*([(word, 0.0)] for word in words), [(token, math.log(p)) for token, p in grades.items()], [("<|im_end|>", 0.0)]]


@pytest.mark.parametrize(
    ("words", "grades"),
    [(("ANSWER", ":", " "), {"4": 0.5, "5": 0.25, "1": 0.05, "x": 0.2}), (("ANSWER:",), {" 4": 0.5, " 5": 0.25, "1": 0.05, " x": 0.2})],
    ids=["a space of its own", "a space in the grade"],
)
def test_a_server_is_asked_once_a_prefix(words: tuple[str, ...], grades: dict[str, float]) -> None:
    episode = dot_episodes(1)[0]
    with chat_server() as server, remote(server, fps=2.0) as model, remote(server, fps=2.0, grading="greedy") as writer:
        server.lists, server.text = lambda body: answer(*words, grades=grades), lambda body: "ANSWER: 4"
        curve, written = model.predict(episode).main, writer.predict(episode).main
        assert len(server.bodies) == 2 * len(model.looked_at(episode.length, episode.fps)[0])
        assert "Task: " + episode.task in json.dumps(server.bodies[0])
        assert "logprobs" not in server.bodies[-1]  # words can be had from a server that has no log-probabilities
    asked = ~np.isnan(curve.signals["grade"].values)
    np.testing.assert_allclose(curve.signals["grade"].values[asked], (0.5 * 4 + 0.25 * 5 + 0.05) / 0.8, atol=1e-5)
    np.testing.assert_allclose(curve.signals["outside"].values[asked], 0.2, atol=1e-5)
    np.testing.assert_allclose(written.value, 0.75)


def test_a_server_that_writes_no_grade_leaves_the_curve_unknown() -> None:
    with chat_server() as server, remote(server) as model:
        server.lists = lambda body: [[("It", 0.0)], [(" is", 0.0)], [(" 4", 0.0)]]
        assert np.isnan(model.predict(dot_episodes(1)[0]).value).all()
        asked = len(server.bodies)
        assert f"answers without a grade from 1 to 5: {asked} of {asked}" in model.close()[0]
        assert '"It is 4"' in model.close()[0]
    with chat_server() as server, remote(server, grading="greedy") as writer:
        server.text = lambda body: "I give it 3.5 of 5"
        assert np.isnan(writer.predict(dot_episodes(1)[0]).value).all()
        assert '"I give it 3.5 of 5"' in writer.close()[0]


def test_a_model_that_answers_in_another_form_is_named() -> None:
    with chat_server() as server, remote(server) as model:
        server.lists = lambda body: answer("ANSWER", ":", " ", grades={"1": 0.02, "2": 0.01, "The": 0.97})
        model.predict(dot_episodes(1)[0])
        (line, *_) = model.close()
        assert line.startswith("97% of the probability, on average, is outside the five grades (raw_outside)")
    with chat_server() as server, remote(server) as model:
        server.lists = lambda body: answer("ANSWER", ":", " ", grades={"1": 0.6, "2": 0.3, "The": 0.1})
        model.predict(dot_episodes(1)[0])
        assert model.close()[0].startswith("server:")


def test_damaged_weights_are_no_unknown_curve() -> None:
    """A NaN in the weights would make each grade NaN, without a reason."""
    model = tiny_roboreward()
    episode, row = dot_episodes(1)[0], model.engine.networks.text.norm.weight
    before = row.data.clone()
    row.data[0] = torch.nan
    try:
        with pytest.raises(DataError, match=r"the model puts out NaN: its weights are damaged, or too large for float32"):
            model.predict(episode)
    finally:
        row.data.copy_(before)


def test_a_server_without_log_probabilities_is_named() -> None:
    with chat_server() as server, remote(server) as model:
        server.lists = lambda body: []
        with pytest.raises(DataError, match=r"without log-probabilities.*--grading greedy"):
            model.predict(dot_episodes(1)[0])


@pytest.mark.parametrize("listed", [{"3": 0.9}, {"3": 0.6, "4": 0.3}], ids=["chosen alone", "two"])
def test_a_server_that_lists_too_few_tokens_is_named(listed: dict[str, float]) -> None:
    """Of the chosen token alone the mean would be the grade as written, whatever the probabilities of the others are."""
    with chat_server() as server, remote(server) as model, remote(server, grading="greedy") as writer:
        server.lists = lambda body: answer("ANSWER", ":", " ", grades=listed)
        with pytest.raises(DataError, match=r"listed .* alone, with a probability of 0.90.*--grading greedy"):
            model.predict(dot_episodes(1)[0])
        server.lists = lambda body: answer("ANSWER", ":", " ", grades={"3": 1.0})  # nothing is left for another grade
        np.testing.assert_allclose(model.predict(dot_episodes(1)[0]).value, 0.5, atol=1e-6)
        server.text = lambda body: "ANSWER: 3"
        np.testing.assert_allclose(writer.predict(dot_episodes(1)[0]).value, 0.5, atol=1e-6)
    with chat_server(max_logprobs=3) as server, remote(server) as model:
        server.lists = lambda body: answer("ANSWER", ":", " ", grades={str(grade): 0.2 for grade in range(1, 6)})
        with pytest.raises(DataError, match=r"lists 2 tokens at most.*--grading greedy"):
            model.predict(dot_episodes(1)[0])
