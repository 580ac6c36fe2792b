"""The shared pass gives the numbers of one pass per prefix, and those of LeRobot."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.core.errors import DataError
from milepost.vlm.engine import Engine
from milepost.vlm.patches import Resolution
from milepost.vlm.prompt import Prompt

LEROBOT = Resolution("lerobot")
TASKS = ["pick up the hammer and drive the nail into the wall", "slide the window open"]
EXACT = 1e-5


def apart(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    assert a.dtype == np.float32
    return float(np.abs(a - b).max())


def noise(rng: np.random.Generator, frames: int, height: int, width: int) -> np.ndarray:
    """Blobs rather than snow, so that resizing keeps something to look at."""
    coarse = rng.integers(0, 256, (frames, 4, 5, 3), dtype=np.uint8)
    return coarse.repeat(-(-height // 4), 1).repeat(-(-width // 5), 2)[:, :height, :width].copy()


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("name", ["wide", "square", "odd_size"])
@pytest.mark.parametrize("path", ["score", "separate"])
def test_lerobots_numbers(path, name, chat, engine, golden, clips):
    engine = engine.with_prompt(Prompt(chat_template=chat))
    cases = [case for case in golden["cases"] if (case["clip"], case["add_chat_template"]) == (name, chat)]
    clip = engine.clip(clips[name], fps=golden["fps"], resolution=LEROBOT)
    said = getattr(engine, path)(clip, instructions=[case["instruction"] for case in cases], answers=["True", "False"])
    space = "" if chat else " "
    truth = [[[each["log_prob"][space + word] for word in ("True", "False")] for each in case["prefixes"]] for case in cases]
    np.testing.assert_allclose(said, truth, rtol=0, atol=2e-5)
    np.testing.assert_allclose(said[..., 0], [[each["reward"] for each in case["prefixes"]] for case in cases], rtol=0, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (224, 224), (33, 70), (96, 32)])
def test_shared_is_separate(height, width, engine, rng):
    engine = engine.with_prompt(Prompt())
    clip = engine.clip(noise(rng, 9, height, width), times_s=np.cumsum(rng.random(9)).tolist())
    shared = engine.score(clip, instructions=TASKS)
    assert apart(shared, engine.separate(clip, instructions=TASKS)) <= EXACT
    assert shared[:, :, 0].std() > 0.01  # a model that says the same of everything would pass


def test_sizes_that_change_with_the_prefix_make_a_trunk_each(engine, rng):
    engine = engine.with_prompt(Prompt())
    resolution = Resolution("lerobot", min_pixels=30_000, max_pixels=60_000)
    clip = engine.clip(noise(rng, 9, 96, 128), fps=2.0, resolution=resolution)
    shared = engine.score(clip, instructions=TASKS[:1])
    assert len(clip.caches) >= 3
    assert apart(shared, engine.separate(clip, instructions=TASKS[:1])) <= EXACT


TEXTS = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.integers(1, 4),
        "num_attention_heads": st.sampled_from([4, 8]),
        "num_key_value_heads": st.sampled_from([1, 2, 4]),
        "hidden_size": st.sampled_from([32, 48]),
        "head_dim": st.just(16),
        "rope_parameters": st.sampled_from([(4, 2, 2), (2, 3, 3), (6, 1, 1)]).map(
            lambda s: {"rope_type": "default", "rope_theta": 10_000.0, "mrope_interleaved": True, "mrope_section": list(s)}
        ),
    }
)
VISIONS = st.fixed_dictionaries(
    {
        "depth": st.integers(1, 3),
        "num_heads": st.sampled_from([1, 2]),
        "hidden_size": st.sampled_from([16, 32]),
        "patch_size": st.sampled_from([8, 16]),
        "num_position_embeddings": st.sampled_from([16, 64]),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, vision=VISIONS, data=st.data())
def test_shared_is_separate_in_random_models(text, vision, data, random_engine):
    levels = data.draw(st.sets(st.integers(0, vision["depth"] - 1), max_size=text["num_hidden_layers"]), "deepstack")
    seed, attention = data.draw(st.integers(0, 99), "seed"), data.draw(st.sampled_from(["sdpa", "eager"]), "attention")
    engine: Engine = random_engine(seed, text=text, vision=vision | {"deepstack_visual_indexes": sorted(levels)}, attention=attention)
    frames, height, width = (data.draw(st.integers(low, high), name) for low, high, name in ((1, 7, "T"), (32, 80, "H"), (32, 80, "W")))
    clip = engine.clip(noise(np.random.default_rng(seed), frames, height, width), fps=data.draw(st.sampled_from([2.0, 7.3]), "fps"))
    engine = engine.with_prompt(Prompt(chat_template=data.draw(st.booleans(), "chat")))
    assert apart(engine.score(clip, instructions=TASKS), engine.separate(clip, instructions=TASKS)) <= EXACT


def test_a_mixture_of_experts_shares_too(random_engine, rng):
    text = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1, "mlp_only_layers": []}
    engine = random_engine(3, text=text, vision={}, experts=True)
    clip = engine.clip(noise(rng, 5, 64, 64), fps=2.0)
    assert apart(engine.score(clip, instructions=TASKS), engine.separate(clip, instructions=TASKS)) <= EXACT


def test_deepstack_and_the_picture_matter(random_engine, rng):
    """The comparison above would be blind to features that reach nothing."""
    engine = random_engine(0, text={}, vision={})
    frames = noise(rng, 4, 64, 64)
    said = engine.score(engine.clip(frames, fps=2.0), instructions=TASKS[:1])
    other = engine.score(engine.clip(255 - frames, fps=2.0), instructions=TASKS[:1])
    for merger in engine.networks.tower.deepstack_merger_list:
        merger.linear_fc2.weight.zero_()
    flat = engine.score(engine.clip(frames, fps=2.0), instructions=TASKS[:1])
    assert np.abs(said - other).max() > 1e-2
    assert np.abs(said - flat).max() > 1e-2


def test_many_instructions_are_each_alone(engine, clips):
    engine = engine.with_prompt(Prompt())
    several = [*TASKS, "pick up the hammer", "slide"]
    together = engine.score(engine.clip(clips["wide"], fps=2.0), instructions=several)
    alone = [engine.score(engine.clip(clips["wide"], fps=2.0), instructions=[task])[0] for task in several]
    assert apart(together, np.stack(alone)) <= EXACT
    assert apart(together[[1, 1]], engine.score(engine.clip(clips["wide"], fps=2.0), instructions=[TASKS[1]] * 2)) <= EXACT


def test_any_prefixes_in_any_order(engine, clips):
    engine = engine.with_prompt(Prompt())
    clip = engine.clip(clips["square"], fps=2.0)
    everything = engine.score(clip, instructions=TASKS)
    wanted = [12, 3, 3, 1, 8]
    assert apart(engine.score(clip, instructions=TASKS, prefixes=wanted), everything[:, [n - 1 for n in wanted]]) <= EXACT
    fresh = engine.clip(clips["square"], fps=2.0)
    first = engine.score(fresh, instructions=TASKS, prefixes=[5])  # a short trunk, lengthened later
    assert apart(first, everything[:, [4]]) <= EXACT
    assert apart(engine.score(fresh, instructions=TASKS, prefixes=[11]), everything[:, [10]]) <= EXACT


@pytest.mark.parametrize("limits", [{"prefix": 1, "questions": 1}, {"prefix": 40, "questions": 90}, {"prefix": 9999, "questions": 9999}])
def test_how_much_is_done_at_once_changes_nothing(limits, engine, tiny, clips):
    engine = engine.with_prompt(Prompt())
    expected = engine.score(engine.clip(clips["square"], fps=2.0), instructions=TASKS)
    tiny.budget.limits.update(limits)
    assert apart(tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS), expected) <= EXACT


def test_little_memory_means_small_steps(tiny, clips, monkeypatch):
    expected = tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS)
    rows = []
    forward = tiny.networks.forward
    monkeypatch.setattr(tiny.networks, "forward", lambda pieces, *a, **k: rows.append(len(pieces)) or forward(pieces, *a, **k))
    tiny.budget._max_memory = 1
    assert apart(tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS), expected) <= EXACT
    assert max(rows) <= 3  # a branch, what all questions begin with, a question
    assert len(rows) == 6 + 12 * 2


def test_running_out_of_memory_halves_the_step(tiny, clips, monkeypatch):
    expected = tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS)
    forward, failed = tiny.networks.forward, []

    def small(pieces, *args, **kwargs):
        if sum(len(piece.ids) for piece in pieces) > 100:
            if not failed or len(pieces) % 2:  # also after some layers have written their keys
                forward(pieces, *args, **kwargs)
            failed.append(len(pieces))
            raise torch.OutOfMemoryError("no more")
        return forward(pieces, *args, **kwargs)

    monkeypatch.setattr(tiny.networks, "forward", small)
    assert apart(tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS), expected) <= EXACT
    assert 2 <= len(failed) <= 8


def test_when_one_piece_is_too_much_it_says_so(tiny, clips, monkeypatch):
    def never(*args, **kwargs):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(tiny.networks, "forward", never)
    with pytest.raises(DataError, match="smaller resolution"):
        tiny.score(tiny.clip(clips["square"], fps=2.0), instructions=TASKS)


def test_every_token_is_read_once(tiny, clips):
    """square: 12 frames, groups of 9 placeholders; prefix 6 groups, 6 branches, 12 questions."""
    clip = tiny.clip(clips["square"], fps=2.0)
    tiny.score(clip, instructions=TASKS[:1])
    head, each = (len(tiny._prompt_tokens.stamp(group, time_s=0.2, tokens=9)) for group in (0, 1))
    question = len(tiny._prompt_tokens.question(TASKS[0], ["True"])[0])
    assert tiny.tokens == {"prefix": head + 5 * each, "branches": head + 5 * each, "suffixes": 12 * question}
    tiny.tokens.clear()
    tiny.score(clip, instructions=TASKS[1:])
    assert "prefix" not in tiny.tokens  # a clip keeps its prefix cache


def test_fifteen_anchors_of_a_long_clip_read_a_sixth(tiny, rng):
    clip = tiny.clip(noise(rng, 300, 64, 64), fps=2.0, resolution=Resolution(size=(128, 128)))
    anchors = sorted({int(n) for n in np.linspace(1, 300, 15)})
    tiny.score(clip, instructions=TASKS[:1], prefixes=anchors)
    each = len(tiny._prompt_tokens.stamp(1, time_s=9.2, tokens=16))
    question = len(tiny._prompt_tokens.question(TASKS[0], ["True"])[0])
    assert 6 * tiny.tokens.total() <= sum(-(-n // 2) * each + question for n in anchors)


def test_a_clip_is_not_confused_between_models(tiny, random_engine, clips):
    clip = tiny.clip(clips["wide"], fps=2.0)
    tiny.score(clip, instructions=TASKS)
    other = random_engine(1, text={}, vision={})
    assert apart(other.score(clip, instructions=TASKS), other.separate(clip, instructions=TASKS)) <= EXACT


@pytest.mark.parametrize(
    ("frames", "settings", "says"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), {"fps": 2.0}, "empty"),
        (np.zeros((2, 0, 8, 3), np.uint8), {"fps": 2.0}, "no area"),
        (np.zeros((2, 8, 8), np.uint8), {"fps": 2.0}, "uint8"),
        (np.zeros((2, 8, 8, 3), np.float32), {"fps": 2.0}, "uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), {}, "when"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"fps": 0.0}, "above zero"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"times_s": [0.0]}, "times_s"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"times_s": [1.0, 0.0]}, "times_s"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"times_s": [0.0, np.nan]}, "times_s"),
    ],
)
def test_a_clip_that_is_none_is_refused(frames, settings, says, tiny):
    with pytest.raises((DataError, TypeError), match=says if frames.ndim == 4 and frames.dtype == np.uint8 else None):
        tiny.clip(frames, **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"instructions": []}, "no instruction"),
        ({"instructions": [""]}, "empty"),
        ({"instructions": ["a"], "answers": []}, "no answers"),
        ({"instructions": ["a"], "prefixes": [0]}, "prefixes"),
        ({"instructions": ["a"], "prefixes": [10]}, "prefixes"),
    ],
)
def test_questions_that_are_none_are_refused(settings, says, tiny, clips):
    with pytest.raises(DataError, match=says):
        tiny.score(tiny.clip(clips["wide"], fps=2.0), **settings)


def test_a_clip_longer_than_the_context_is_refused(random_engine, rng):
    engine = random_engine(0, text={"max_position_embeddings": 100}, vision={})
    assert engine.score(engine.clip(noise(rng, 4, 64, 64), fps=2.0), instructions=TASKS[1:]).shape == (1, 4, 2)
    with pytest.raises(DataError, match="fewer frames"):
        engine.score(engine.clip(noise(rng, 40, 64, 64), fps=2.0), instructions=TASKS[1:])
    stream = engine.stream(instructions=TASKS[1:], fps=2.0)
    with pytest.raises(DataError, match="fewer frames"):
        [stream.append(frame) for frame in noise(rng, 40, 64, 64)]
