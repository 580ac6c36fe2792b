"""`milepost.testing`: every broken promise is found and named, whole models pass, and docs/testing.md runs as it stands."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milepost.core import Curve, Episode, Progress, Signal, Step, UnreadableError
from milepost.datasets import open_dataset, validate
from milepost.encoders import load_encoder
from milepost.models import TOPRewardConfig, TOPRewardModel, load_model
from milepost.models.elapsed import ElapsedModel
from milepost.testing import CAMERA, ConstantModel, check_reward_model, dot_episodes, tiny_clip, tiny_sarm, tiny_vlm, write_dots

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"


class Clock:
    """A whole model, of which each case below breaks one promise."""

    def predict(self, episode: Episode) -> Any:
        return Progress(episode.index, np.linspace(0, 1, episode.length, dtype=np.float32))


def broken(predict: Callable[[Episode], Any], **more: Any) -> Any:
    return type("Broken", (Clock,), {"predict": lambda self, episode: predict(episode), **more})()


def clock(episode: Episode, **changes: Any) -> Progress:
    return Progress(episode.index, Curve(np.linspace(0, 1, episode.length, dtype=np.float32), **changes))


def spoil(episode: Episode) -> Progress:
    episode.state[0] += 1
    return clock(episode)


def only_long(episode: Episode) -> Progress:
    return Progress(episode.index, np.linspace(0, 1, max(2, episode.length), dtype=np.float32))


RNG = np.random.default_rng(0)
CASES: list[tuple[str, Callable[[], Any], str]] = [
    ("no predict", lambda: object(), "no method predict"),
    ("another type", lambda: broken(lambda e: [0.5] * e.length), "must return milepost.Progress, it returned list"),
    ("another length", lambda: broken(lambda e: Progress(e.index, np.zeros(e.length + 1, np.float32))), "one number for each frame"),
    ("another episode", lambda: broken(lambda e: Progress(7, np.zeros(e.length, np.float32))),
     "asked of episode 0 and answers of episode 7"),
    ("one number for all", lambda: broken(lambda e: Progress(0, np.zeros(e.length, np.float32))),
     "asked of episode 1 and answers of episode 0"),
    ("all NaN", lambda: broken(lambda e: Progress(e.index, np.full(e.length, np.nan, np.float32))), "NaN in every frame"),
    ("out of range", lambda: broken(lambda e: Progress(e.index, np.full(e.length, 1.5, np.float32))), r"must lie in \[0, 1\]"),
    ("double precision", lambda: broken(lambda e: Progress(e.index, np.zeros(e.length))), "float32"),
    ("a loose signal", lambda: broken(lambda e: clock(e, signals={"p": Signal(np.full(e.length, 2.0, np.float32), low=0.0, high=1.0)})),
     r"the signal 'p' states that it lies in \[0, 1\], its values are 2..2"),
    ("stages", lambda: broken(lambda e: clock(e, stage=np.full((e.length, 2), 0.7, np.float32))), "sum to 1"),
    ("dice", lambda: broken(lambda e: Progress(e.index, RNG.random(e.length, dtype=np.float32))), "when it is asked again"),
    ("the episode", lambda: broken(spoil), "changes the episode"),
    ("the truth", lambda: broken(lambda e: Progress(e.index, e.columns.get("truth.progress", np.zeros(e.length, np.float32)))),
     "reads the answer"),
    ("the outcome", lambda: broken(lambda e: Progress(e.index, np.full(e.length, float(bool(e.success)), np.float32))), "reads the answer"),
    ("one frame", lambda: broken(only_long), "of an episode of one frame predict must return one number, it returned 2"),
    ("looking first", lambda: type("M", (Clock,), {"look": lambda self, e: 0.5, "predict": seen})(), "seen=look"),
    ("a threshold", lambda: broken(clock, success_threshold="high"), "success_threshold must be a number"),
    ("an identity", lambda: broken(clock, identity=lambda self: {"a": np.zeros(2)}), "plain values that JSON can hold"),
    ("a NaN in it", lambda: broken(clock, identity=lambda self: {"a": [float("nan")]}), "plain values that JSON can hold"),
    ("a number as a key", lambda: broken(clock, identity=lambda self: {"a": {1: 2}}), "a key in it is not a string"),
    ("an identity that is a number", lambda: broken(clock, identity=lambda self: float("nan")), "it returned float"),
    ("another identity", lambda: broken(clock, identity=lambda self: {"a": RNG.random()}), "something else when it is asked again"),
    ("saving", lambda: broken(clock, save_pretrained=lambda self, folder: Path(folder).mkdir()), 'config.json with a "type"'),
    ("steps", lambda: broken(clock, reset=lambda self, *, task, fps: None, step=lambda self, frames, state=None: 0.5), "it returned float"),
    ("step's range", lambda: broken(clock, reset=lambda self, *, task, fps: None, step=lambda self, frames, state=None: Step(2.0)),
     "returned 2 for"),
]  # fmt: skip


def seen(self: Any, episode: Episode, *, seen: Any = 0.0) -> Progress:
    return Progress(episode.index, np.full(episode.length, seen, np.float32))


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_broken_promise_is_named(make: Callable[[], Any], words: str) -> None:
    """One sentence for one fault: nothing else of the model is called broken."""
    said = check_reward_model(make(), dot_episodes(1)[0])
    assert len(said) == 1
    assert re.search(words, said[0])


def test_a_model_that_saves_another_one_is_found_out() -> None:
    episode = dot_episodes(1)[0]
    assert check_reward_model(tiny_sarm(), episode, load=load_model) == []
    assert check_reward_model(tiny_sarm(), episode, load=lambda folder: tiny_sarm(seed=1)) == [
        "the model that is loaded from the saved folder gives other numbers"
    ]
    assert check_reward_model(Clock(), episode, load=load_model) == ["load is given, and the model has no save_pretrained(folder)"]


def test_whole_models_pass(tmp_path: Path) -> None:
    vlm = TOPRewardModel(TOPRewardConfig(vlm_name=str(tiny_vlm(tmp_path)), fps=5.0))
    for model in (Clock(), ElapsedModel(), ConstantModel(), tiny_sarm(), vlm):
        assert check_reward_model(model, dot_episodes(2, failing=1)[1]) == []


def test_a_model_may_refuse_an_episode_in_words() -> None:
    def picky(episode: Episode) -> Progress:
        if episode.length < 2:
            raise UnreadableError("one frame shows no progress")
        return clock(episode)

    assert check_reward_model(broken(picky), dot_episodes(1)[0]) == []


def test_what_the_model_raises_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        check_reward_model(broken(lambda episode: 1 / 0), dot_episodes(1)[0])


def test_dots_on_disk_are_the_dots_in_memory(tmp_path: Path) -> None:
    episodes = dot_episodes(3, failing=1, tasks=2)
    write_dots(tmp_path / "dots", episodes)
    assert validate(tmp_path / "dots").healthy
    for mine, theirs in zip(episodes, open_dataset(tmp_path / "dots"), strict=True):
        assert (theirs.task, theirs.success, theirs.segments, theirs.facts) == (mine.task, mine.success, mine.segments, mine.facts)
        np.testing.assert_array_equal(theirs.columns["truth.progress"].reshape(-1), mine.columns["truth.progress"])
        np.testing.assert_array_equal(theirs.state, mine.state)
        every = np.arange(mine.length)
        assert np.abs(theirs.cameras[CAMERA][every].astype(int) - mine.cameras[CAMERA][every]).mean() < 4


def test_tiny_models_are_made_of_their_seed(tmp_path: Path) -> None:
    for make in (tiny_clip, tiny_vlm):
        one, same, other = (make(tmp_path / f"{make.__name__}-{name}", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
        assert (one / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()
        assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    encoder = load_encoder(str(tmp_path / "tiny_clip-a"))
    assert (encoder.width, encoder.text_width) == (16, 16)
    texts = encoder.text(["open the drawer", "close the drawer"])
    assert np.abs(texts[0] - texts[1]).max() > 0.01


def test_it_loads_no_test_framework_and_nothing_loads_it() -> None:
    code = (
        "import sys, milepost, milepost.cli; assert not any(name.startswith('milepost.testing') for name in sys.modules); "
        "import milepost.testing; print(sorted({'pytest', 'hypothesis', 'beartype', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("['predict must return one number for each frame: ")
    assert printed[1] == "HTTP Error 503: Service Unavailable"
    assert 0 < names["distance"] < 1
    assert names["answer"] == "the drawer is open"
