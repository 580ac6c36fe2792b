"""Whatever is wrong with a model of another package: one message that names the package, no traceback, nothing half-written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_third_party import dataset  # noqa: F401 (a fixture)

import milepost
from milepost.cli.entry import main
from milepost.models.elapsed import ElapsedConfig
from milepost.models.factory import make_reward_model, make_reward_model_config
from milepost.testing import check_reward_model, dot_episodes
from packages import install

BASE = """
from dataclasses import dataclass
import numpy as np
from milepost.core import Curve, Progress, Signal
from milepost.models import ModelKind

def half(episode):
    return np.full(episode.length, 0.5, np.float32)

class Model:
    def predict(self, episode):
        return Progress(episode.index, half(episode))
"""
BROKEN = {
    "raises when imported": ("raise RuntimeError('no licence')", "cannot be imported: RuntimeError: no licence"),
    "ends the program when imported": ("import sys; sys.exit('bye')", "cannot be imported: SystemExit: bye"),
    "is no Python": ("def def", "cannot be imported: SyntaxError"),
    "lacks a package of its own": ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
    "needs arguments": ("Model.__init__ = lambda self, config: None", "TypeError: .*missing 1 required positional argument: 'config'"),
    "fails when it predicts": ("Model.predict = lambda self, episode: {}['x']", "Model .of bright 1.2.: KeyError: 'x'"),
    "raises an OSError": ("def predict(self, e): open('/nowhere/at/all')\nModel.predict = predict", "of bright 1.2.: FileNotFoundError"),
    "ends the program": ("Model.predict = lambda self, episode: exit(3)", "of bright 1.2.: SystemExit"),
    "returns a list": ("Model.predict = lambda self, e: Progress(e.index, [0.5] * e.length)", "bright 1.2.: .* got list"),
    "returns a curve of a list": (
        "Model.predict = lambda self, e: Progress(e.index, Curve([0.5]))", "'progress' should be a NumPy array, got list",
    ),
    "returns a tensor": (
        "import torch\nModel.predict = lambda self, e: Progress(e.index, Curve(torch.zeros(e.length)))",
        "should be a NumPy array, got Tensor",
    ),
    "returns heads of arrays": ("Model.predict = lambda self, e: Progress(e.index, {'sparse': half(e)})", "each a Curve; got ndarray"),
    "has a signal that is an array": (
        "Model.predict = lambda self, e: Progress(e.index, Curve(half(e), signals={'x': half(e)}))",
        "'x' should be a Signal, got ndarray",
    ),
    "leaves a signal's bounds": (
        "Model.predict = lambda self, e: Progress(e.index, Curve(half(e), signals={'x': Signal(half(e), '', 2.0, 3.0)}))",
        "of episode 0, signal 'x' of head 'sparse' should lie in .2, 3.",
    ),
    "has stages that do not sum to 1": (
        "Model.predict = lambda self, e: Progress(e.index, Curve(half(e), stage=np.full((e.length, 2), 0.9, np.float32)))",
        "of episode 0, the stage probabilities of head 'sparse' should be at least 0 and sum to 1",
    ),
    "knows nothing": (
        "Model.predict = lambda self, e: Progress(e.index, np.full(e.length, np.nan, np.float32))",
        "of bright 1.2. returned NaN for every frame",
    ),
    "has a NaN in its identity": (
        "Model.identity = lambda self: {'x': float('nan')}", "identity.. of Model .of bright 1.2. should be plain values",
    ),
    "has no mapping as identity": ("Model.identity = lambda self: 3", "of bright 1.2.: TypeError"),
    "fails to prepare": ("Model.prepare_for = lambda self, dataset, **_: 1 / 0", "of bright 1.2.: ZeroDivisionError"),
    "fails to close": ("Model.close = lambda self: 1 / 0", "of bright 1.2.: ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "words"), BROKEN.values(), ids=BROKEN)
def test_one_message_names_the_package(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, words: str  # noqa: F811
) -> None:  # fmt: skip
    install(tmp_path / "site", monkeypatch, BASE + code, offer="Model")
    before = sorted(path for path in dataset.rglob("*"))
    command = ["label", str(dataset), "--model", "brightness"]
    if "NumPy array" in words or "got " in words:  # of another type: as a user has it, without the tests' own checks of types
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
        run = subprocess.run([sys.executable, "-m", "milepost.cli", *command], capture_output=True, text=True, check=False)
        code_of_exit, errors = run.returncode, run.stderr
    else:
        code_of_exit, errors = main(command), capsys.readouterr().err
    assert code_of_exit == 2, errors
    message = errors.strip().splitlines()[-1]
    assert message.startswith("milepost label: ")
    assert "bright 1.2" in message
    assert re.search(words, message), message
    if "close" not in code:
        assert not [path for path in dataset.rglob("*.parquet") if path not in before and ".partial" not in str(path)]


def test_what_the_command_line_also_accepts(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    """A name with a hyphen and options, a close() without a message, and a dense head alone."""
    code = BASE + (
        "@dataclass(frozen=True)\nclass Options:\n    gain: float = 1.0\n"
        "def make(device='cpu', gain=1.0):\n    model = Model()\n    model.gain = gain\n    return model\n"
        "Model.close = lambda self: None\n"
        "Model.predict = lambda self, e: Progress(e.index, {'dense': Curve(np.linspace(0, self.gain, e.length, dtype=np.float32))})\n"
        "MODEL = ModelKind('x', load=lambda folder, device='cpu': Model(), bare=make, options=Options)\n"
    )
    install(tmp_path / "site", monkeypatch, code, name="my-model")
    assert main(["label", str(dataset), "--model", "my-model", "--my-model.gain", "0.5"]) == 0
    table = milepost.read_progress(dataset / "my-model_progress.parquet")
    assert table.main.value.max() == 0.5
    for words in (["--model", "my-model"], []):
        plot = ["plot", str(dataset), *words, "--output-dir", str(tmp_path / f"plots{len(words)}")]
        assert main(plot) == 2
        assert "dense" in capsys.readouterr().err
        assert main([*plot, "--head-mode", "dense"]) == 0
    assert main(["evaluate", str(dataset), "--head-mode", "dense"]) == 0
    assert main(["weigh", str(dataset), "--head-mode", "dense", "--output-path", str(tmp_path / "weights.parquet")]) == 0


def test_a_broken_package_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, "raise RuntimeError('broken')", name="a", offer="Model", package="broken")
    code = BASE + "@dataclass(frozen=True)\nclass Config:\n    pretrained_path: str = ''\n"
    code += "MODEL = ModelKind('b', load=lambda folder, device='cpu': Model(), config=Config, make=lambda config, folder: Model())\n"
    install(tmp_path / "site", monkeypatch, code, name="b")
    assert type(make_reward_model(make_reward_model_config("b"))).__name__ == "Model"
    assert type(make_reward_model(ElapsedConfig())).__name__ == "ElapsedModel"
    assert type(milepost.load_model("elapsed")).__name__ == "ElapsedModel"


def test_a_folder_of_a_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a model does not hide the name; a saved model in it does, with a warning."""
    monkeypatch.chdir(tmp_path)
    Path("elapsed").mkdir()
    assert type(milepost.load_model("elapsed")).__name__ == "ElapsedModel"
    milepost.testing.tiny_sarm().save_pretrained("elapsed")
    with pytest.warns(milepost.core.DataWarning, match="the folder 'elapsed' has a saved model, which is used"):
        assert type(milepost.load_model("elapsed")).__name__ == "SARMModel"


@pytest.mark.parametrize(("name", "words"), [("elapsed", "has no option banana; it takes none"), ("topreward", "banana")])
def test_a_wrong_option_is_named(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        milepost.load_model(name, banana=1)


def test_only_milepost_s_models_are_trained_here(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    install(tmp_path / "site", monkeypatch, BASE, name="level", offer="Model")
    for name, words in {
        "level": "of the package bright 1.2 is trained by its own",
        "elapsed": "nothing to train",
        "x": "no model 'x'",
    }.items():
        assert main(["train", str(dataset), "--output-dir", str(tmp_path / "model"), "--model", name]) == 2
        assert words in capsys.readouterr().err


class FirstEpisodeOnly:
    """A model that answers as if every episode were number 0."""

    def predict(self, episode: milepost.Episode) -> milepost.Progress:
        return milepost.Progress(0, np.linspace(0, 1, episode.length, dtype=np.float32))


def test_the_check_finds_a_constant_episode_number() -> None:
    (fault,) = check_reward_model(FirstEpisodeOnly(), dot_episodes(1)[0])
    assert "was asked of episode 41 and answers of episode 0" in fault
