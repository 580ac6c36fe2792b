"""A reward model of another package: one file and an entry point, as a user would write them; and what is said of a bad one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import milepost
from builders import build_dataset
from milepost.cli.entry import main
from milepost.core.errors import DataError, DataWarning
from milepost.models import registry
from milepost.models.factory import make_reward_model, make_reward_model_config
from milepost.models.registry import load_model
from milepost.progress.table import read_progress
from packages import install

MODEL = '''
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from milepost.models.registry import ModelKind
from milepost.core import Curve, Progress, Signal


@dataclass(frozen=True)
class BrightnessConfig:
    gain: float = 1.0


@dataclass(frozen=True)
class BrightnessOptions:
    """For a brightness model."""

    gain: float = 1.0
    """Progress is multiplied by this."""


class BrightnessModel:
    def __init__(self, config=BrightnessConfig()):
        self.config = config

    def predict(self, episode):
        images = next(iter(episode.cameras.values()))[np.arange(episode.length)]
        level = images.mean((1, 2, 3)).astype(np.float32)
        value = np.clip(self.config.gain * level / 255, 0, 1).astype(np.float32)
        return Progress(episode.index, Curve(value, signals={"level": Signal(level, "grey levels", 0.0, 255.0)}, score="level"))

    def identity(self):
        return asdict(self.config)

    def save_pretrained(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text(json.dumps({"type": "brightness", **asdict(self.config)}))


def read_config(folder):
    values = json.loads((Path(folder) / "config.json").read_text())
    return BrightnessConfig(values["gain"])


MODEL = ModelKind(
    "brightness",
    load=lambda folder, device="cpu", **options: BrightnessModel(read_config(folder)),
    bare=lambda device="cpu", **options: BrightnessModel(BrightnessConfig(**options)),
    config=BrightnessConfig,
    make=lambda config, folder: BrightnessModel(config),
    read_config=read_config,
    options=BrightnessOptions,
)
'''


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return build_dataset(tmp_path / "cubes", lengths=(9, 14)).root


@pytest.fixture
def brightness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, MODEL)


@pytest.mark.usefixtures("brightness")
def test_it_is_loaded_made_and_saved_like_a_built_in_one(tmp_path: Path, dataset: Path) -> None:
    episode = milepost.open_dataset(dataset)[0]
    plain, brighter = load_model("brightness"), load_model("brightness", gain=2.0)
    level = plain.predict(episode).main.signals["level"]
    assert (level.unit, level.high) == ("grey levels", 255.0)
    np.testing.assert_allclose(brighter.predict(episode).value, np.clip(2 * plain.predict(episode).value, 0, 1), atol=1e-6)
    made = make_reward_model(make_reward_model_config("brightness", gain=2.0))
    made.save_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(load_model(tmp_path / "model").predict(episode).value, brighter.predict(episode).value)


@pytest.mark.usefixtures("brightness")
def test_every_verb_takes_it(tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["label", str(dataset), "--model", "brightness", "--brightness.gain", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "mean final level" in out
    table = read_progress(dataset / "brightness_progress.parquet")
    assert json.loads(table.made_by["settings"])["package"] == "bright 1.2"
    said = load_model("brightness", gain=0.5).predict(milepost.open_dataset(dataset)[1])
    back = table.progress(1, 14)
    np.testing.assert_array_equal(back.value, said.value)
    assert (back.main.score, back.main.signals["level"].unit, back.main.signals["level"].high) == ("level", "grey levels", 255.0)
    assert main(["label", str(dataset), "--model", "brightness", "--brightness.gain", "0.5"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(["label", str(dataset), "--model", "brightness"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["plot", str(dataset), "--model", "brightness", "--output-dir", str(tmp_path / "plots")]) == 0
    assert main(["plot", str(dataset), "--output-dir", str(tmp_path / "more")]) == 0
    assert main(["render", str(dataset), "--output-dir", str(tmp_path / "films")]) == 0
    assert main(["evaluate", str(dataset)]) == 0
    assert main(["weigh", str(dataset), "--output-path", str(tmp_path / "weights.parquet")]) == 0
    assert len(list((tmp_path / "plots").iterdir())) == len(list((tmp_path / "films").iterdir())) == 2


@pytest.mark.usefixtures("brightness")
def test_an_interrupted_run_goes_on_and_two_models_never_mix(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = load_model("brightness"), milepost.open_dataset(dataset)
    predict, asked = type(model).predict, []

    def once(self: object, episode: milepost.Episode) -> milepost.Progress:
        asked.append(episode.index)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return predict(self, episode)

    monkeypatch.setattr(type(model), "predict", once)
    with pytest.raises(KeyboardInterrupt):
        milepost.label(model, data, tmp_path / "p.parquet")
    milepost.label(model, data, tmp_path / "p.parquet")
    assert asked == [0, 1, 1]


class Nameless:
    """A user's own model that says nothing of what its curves depend on."""

    def __init__(self, value: float, stop_at: int | None = None) -> None:
        self.value, self.stop_at = value, stop_at

    def predict(self, episode: milepost.Episode) -> milepost.Progress:
        if episode.index == self.stop_at:
            raise KeyboardInterrupt
        return milepost.Progress(episode.index, np.full(episode.length, self.value, np.float32))


def test_what_cannot_be_identified_is_never_resumed(tmp_path: Path, dataset: Path) -> None:
    data = milepost.open_dataset(dataset)
    with pytest.raises(KeyboardInterrupt):
        milepost.label(Nameless(0.25, stop_at=1), data, tmp_path / "p.parquet")
    with pytest.raises(milepost.DataError, match=r"begun with another model without identity\(\), and is unfinished; .* overwrite=True"):
        milepost.label(Nameless(0.75), data, tmp_path / "p.parquet")
    table = milepost.label(Nameless(0.75), data, tmp_path / "p.parquet", overwrite=True)
    assert set(table.main.value.tolist()) == {0.75}


BAD = {
    "no predict": ("class Model:\n    pass\n", "Model", "bright 1.2 .*neither a ModelKind nor a class with predict"),
    "cannot be imported": ("import nothing_of_this_name\n", "Model", "bright 1.2 cannot be imported"),
    "no such object": ("x = 1\n", "Model", "bright 1.2 cannot be imported"),
    "another length": (
        "import numpy as np\nfrom milepost.core import Progress\nclass Model:\n    def predict(self, episode):\n"
        "        return Progress(episode.index, np.zeros(3, np.float32))\n",
        "Model",
        "of episode 0, which has 9 frames, predict returned 3 frames",
    ),
    "no progress": (
        "class Model:\n    def predict(self, episode):\n        return [0.5]\n",
        "Model",
        "predict should return Progress, it returned list",
    ),
    "outside": (
        "import numpy as np\nfrom milepost.core import Progress\nclass Model:\n    def predict(self, episode):\n"
        "        return Progress(episode.index, np.full(episode.length, 3, np.float32))\n",
        "Model",
        r"Model .*progress must lie in \[0, 1\]",
    ),
    "no JSON": (
        "import numpy as np\nfrom milepost.core import Progress\nclass Model:\n    def identity(self):\n        return {'a': object()}\n"
        "    def predict(self, episode):\n        return Progress(episode.index, np.zeros(episode.length, np.float32))\n",
        "Model",
        "identity.* should be plain values",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_model_that_breaks_its_contract(
    kind: str, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    code, offer, words = BAD[kind]
    install(tmp_path / "site", monkeypatch, code, offer=offer)
    before = sorted(path.name for path in dataset.iterdir())
    assert main(["label", str(dataset), "--model", "brightness"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(words, said), said
    assert "Traceback" not in said
    assert sorted(path.name for path in dataset.iterdir()) == before


def test_two_packages_with_one_name(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    install(tmp_path / "a", monkeypatch, MODEL, package="bright")
    install(tmp_path / "b", monkeypatch, MODEL, package="shine")
    assert main(["label", str(dataset), "--model", "brightness"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "bright 1.2" in said
    assert "shine 1.2" in said


def test_a_built_in_name_is_the_built_in_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch, MODEL, name="elapsed")
    registry._warn_of_shadows.cache_clear()
    with pytest.warns(DataWarning, match="the package bright 1.2 offers a model 'elapsed' too; milepost's own is used"):
        assert type(load_model("elapsed")).__name__ == "ElapsedModel"


def test_a_saved_model_of_a_package_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"type": "brightness", "gain": 1.0}))
    with pytest.raises(
        DataError, match="type 'brightness'; known types: elapsed, gvl, reward_classifier, robometer, roboreward, sarm, success, topreward"
    ):
        load_model(tmp_path / "model")
