"""Whatever is wrong with another package's model: one sentence that names the package, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import milepost
from builders import build_dataset
from milepost.cli.entry import explain, main
from milepost.core import Curve, DataError, ModelError, Progress, Signal
from milepost.core.errors import DataWarning
from milepost.models import registry
from milepost.models.factory import make_reward_model, make_reward_model_config
from milepost.models.foreign import PackageError
from milepost.models.registry import kind_of, load_model
from milepost.progress.table import read_progress
from packages import install

HEAD = """
from dataclasses import dataclass
import numpy as np
from milepost.core import Curve, DataError, Progress, Signal, UnreadableError
from milepost.models.registry import ModelKind, Prepared

def ramp(episode):
    return np.linspace(0, 1, episode.length, dtype=np.float32)
"""
SOUND = "    def predict(self, episode):\n        return Progress(episode.index, ramp(episode))\n"


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("faults") / "cubes", lengths=(9, 14)).root


class World:
    """A dataset, and one package."""

    def __init__(self, dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        self.dataset, self.folder, self.monkeypatch, self.capsys = dataset, folder, monkeypatch, capsys

    def offers(self, code: str, **names: str) -> None:
        install(self.folder / names.get("package", "bright"), self.monkeypatch, HEAD + code, **{"offer": "Model", **names})

    def milepost(self, *words: object) -> tuple[int, str]:
        """Runs a verb; returns its exit code, and all that it prints on one line."""
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(str(leaving.code))
        out, err = self.capsys.readouterr()
        said = " ".join(f"{out} {err}".split())
        assert "Traceback" not in said
        return code, said

    def label(self, *words: object, name: str = "brightness") -> tuple[int, str]:
        return self.milepost("label", self.dataset, "--model", name, "--output-path", self.folder / "p.parquet", *words)

    @property
    def files(self) -> list[str]:
        """Returns what labelling left."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_file() or path.suffix == ".partial")


@pytest.fixture
def world(cubes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> World:
    return World(cubes, tmp_path, monkeypatch, capsys)


def model(body: str, before: str = "") -> str:
    """Returns the code of a class: `body` is what predict does."""
    return f"{before}\nclass Model:\n    def predict(self, episode):\n        {body}\n"


def more(lines: str) -> str:
    return f"class Model:\n{SOUND}{lines}\n"


RETURNS = "return Progress(episode.index, {})"
OPTIONS = "@dataclass(frozen=True)\nclass Options:\n    gain: float = 1.0\n    {}\n"
KIND = "Model = ModelKind('x', load=lambda folder, device, **o: M(), bare=lambda device, **o: M(), {})"
FAULTS: dict[str, tuple[str, str]] = {
    # its import
    "RuntimeError on import": ("raise RuntimeError('no licence')", "cannot be imported: RuntimeError: no licence"),
    "SyntaxError on import": ("def x(:", "cannot be imported: SyntaxError"),
    "SystemExit on import": ("import sys; sys.exit('no GPU')", "cannot be imported: it would end the program (no GPU)"),
    "its own import is missing": ("import nothing_of_this_name", "it needs 'nothing_of_this_name', which is not installed"),
    "KeyError on import": ("{}['key']", "cannot be imported: KeyError: 'key'"),
    # how it is made
    "a constructor with arguments": ("class Model:\n    def __init__(self, path, size): ...\n" + SOUND, "Model needs path, size. The"),
    "a constructor that raises": ("class Model:\n    def __init__(self): raise OSError('no weights')\n" + SOUND, "OSError: no weights"),
    "no model comes out": (KIND.replace("M()", "3").format(""), "has no predict(episode): it is a int"),
    "options that need a value": ("@dataclass\nclass O:\n    gain: float\n" + KIND.format("options=O"), "cannot be made without arguments"),
    "options that are no dataclass": (KIND.format("options=dict"), "options` of its ModelKind should be a dataclass"),
    "options of no type": ("@dataclass\nclass O:\n    gain: 'Nothing' = 1\n" + KIND.format("options=O"), "the command line cannot take"),
    "prepare returns nothing": (KIND.format("prepare=lambda *a: None"), "should return Prepared"),
    "prepare raises": (KIND.format("prepare=lambda *a: [][1]"), "ready for this dataset: IndexError"),
    "an argument of ours": (
        more("") + KIND.format("prepare=lambda p, o, d, r: Prepared(K(), d, {'overwrite': 1})").replace("M()", "K()")
        + "\nclass K:\n" + SOUND, "names that are not milepost's own"),
    "prepare_for raises": (more("    def prepare_for(self, dataset, **more): raise ValueError('no wrist')"), "ValueError: no wrist"),
    # what it answers
    "ValueError in predict": (model("raise ValueError('bad gain')"), "fails in predict(): ValueError: bad gain"),
    "OSError in predict": (model("open('/nowhere/at/all')"), "fails in predict(): FileNotFoundError"),
    "any error in predict": (model("return {}['key']"), "fails in predict(): KeyError: 'key'"),
    "an import in predict": (model("import nothing_of_this_name"), "it needs 'nothing_of_this_name', which is not installed"),
    "sys.exit in predict": (model("raise SystemExit(3)"), "fails in predict(): it would end the program (3)"),
    "an error while looking": (
        "class Model:\n    def look(self, episode): raise RuntimeError('dark')\n    def predict(self, episode, *, seen=None): ...\n",
        "fails in look(): RuntimeError: dark"),
    "double precision": (model(RETURNS.format("np.zeros(episode.length)")), "float32 array of shape (T,), got float64"),
    "another episode": (model("return Progress(episode.index + 1, ramp(episode))"), "of episode 0, which has 9 frames"),
    "a loose signal": (
        model(RETURNS.format("Curve(ramp(episode), signals={'p': Signal(ramp(episode) * 3, 'x', 0.0, 1.0)})")),
        "the signal 'p' states that it lies in [0, 1], its values are 0..3"),
    "stages of too much": (
        model(RETURNS.format("Curve(ramp(episode), np.full((episode.length, 2), 0.7, np.float32))")), "sum to 1, or be NaN; the least"),
    "two signals of one name": (
        model(RETURNS.format("{'a': S(episode, 'b'), 'b': S(episode, 'raw')}"),
              "S = lambda e, name: Curve(ramp(e), signals={name: Signal(ramp(e))})"), "would be in the column 'raw_b'"),
    "a unit of no words": (
        model(RETURNS.format("Curve(ramp(episode), signals={'p': Signal(ramp(episode), 3)})")), "fails in predict()"),
    "NaN everywhere": (model(RETURNS.format("ramp(episode) * np.float32('nan')")), "says NaN, which means unknown, of every frame"),
    "an identity with NaN": (more("    def identity(self): return {'a': float('nan')}"), "identity() should be plain values"),
    "an identity that is NaN": (more("    def identity(self): return float('nan')"), "it returned float"),
    "an identity with numbers for names": (more("    def identity(self): return {1: 2}"), "a key in it is not a string"),
    "an identity that raises": (more("    def identity(self): raise RuntimeError('who')"), "fails in identity(): RuntimeError: who"),
    "a threshold of words": (more("    success_threshold = 'high'"), "should be a number, minus infinity for none; it is str"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_that_names_the_package(fault: str, world: World) -> None:
    code, words = FAULTS[fault]
    world.offers(code)
    status, said = world.label()
    assert status == 2
    assert words in said
    assert said.count("the package bright 1.2") >= 1
    assert world.files == []


def test_a_fault_stays_visible_to_who_looks_for_it(world: World) -> None:
    world.offers(model("return {}['key']"))
    world.monkeypatch.setenv("MILEPOST_DEBUG", "1")
    with pytest.raises(PackageError) as caught:
        main(["label", str(world.dataset), "--model", "brightness", "--output-path", str(world.folder / "p.parquet")])
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(("name", "install_it"), [("mujoco", "'milepost[sim]'"), ("transformers", "'milepost[vlm]'"), ("rich", "rich")])
def test_what_to_install_for_what_is_missing(name: str, install_it: str) -> None:
    assert explain(ModuleNotFoundError(name=name)).endswith(f"'{name}', which is not installed: pip install {install_it}")


def test_what_is_no_array_is_refused_in_words(tmp_path: Path) -> None:
    """In a process of its own, where nothing else checks types."""
    code = """
import numpy as np, torch
from milepost import load_model
from milepost.core import Curve, Progress, Signal
ramp = np.zeros(3, np.float32)
for make in (lambda: Progress(0, [0.0, 0.5]), lambda: Progress(0, torch.zeros(3)), lambda: Progress(0, None), lambda: Progress("0", ramp),
             lambda: Progress(0, {"sparse": ramp}), lambda: Progress(0, {1: Curve(ramp)}), lambda: Curve(ramp, [[1.0]] * 3),
             lambda: Curve(ramp, signals={"p": ramp}), lambda: Curve(ramp, signals={"p": Signal([1, 2, 3])}),
             lambda: Curve(ramp, signals={"p": Signal(ramp, 3)}), lambda: Curve(ramp, np.ones((3, 1), np.float32), (1,)),
             lambda: load_model(None)):
    try:
        make()
    except Exception as error:
        print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = ["got list: np.asarray", "got Tensor: np.asarray", "got NoneType", "got str", "not so: 'sparse'", "not so: 1",
             "stage must be a NumPy array of shape (T, K), got list", "must be a milepost.core.Signal, got ndarray",
             "the signal 'p' must be a NumPy array of shape (T,), got list",
             "both strings; got 'p' and 3", "must be strings, got 1", "or Path; got NoneType"]  # fmt: skip
    lines = run.stdout.splitlines()
    assert all(line.startswith(("ModelError ", "DataError ")) for line in lines)
    assert [each in line for each, line in zip(words, lines, strict=True)] == [True] * len(words)


def test_numbers_that_contradict_themselves() -> None:
    ramp = np.linspace(0, 1, 4, dtype=np.float32)
    nan = np.full((4, 2), np.nan, np.float32)
    assert Progress(0, Curve(ramp, nan, ("a", "b"))).stage is nan
    assert len(Progress(0, Curve(ramp, signals={"p": Signal(ramp * np.float32(0.1), high=0.1)}))) == 4
    for bad in (np.full((4, 2), [1.5, -0.5], np.float32), np.zeros((4, 2), np.float32), np.full((4, 2), np.inf, np.float32)):
        with pytest.raises(ModelError, match="sum to 1"):
            Progress(0, Curve(ramp, bad))
    with pytest.raises(ModelError, match="lies in"):
        Progress(0, Curve(ramp, signals={"p": Signal(ramp - 1, low=0.0)}))


@pytest.mark.parametrize("name", ["my-model", "my_model", "3d", "a.b", "class", "a+b"])
def test_a_name_that_is_no_identifier(name: str, world: World) -> None:
    world.offers(OPTIONS.format("") + "class M:\n" + SOUND + KIND.format("options=Options"), name=name)
    assert world.label(f"--{name}.gain", "2", name=name)[0] == 0
    settings = json.loads(read_progress(world.folder / "p.parquet").made_by["settings"])
    assert settings[f"{name}.gain"] == "2.0"
    assert f"--{name.replace('_', '-')}.gain" in world.milepost("label", "--model", name, "--help")[1]


@pytest.mark.parametrize("name", ["a/b", "a b", "-x", "../x"])
def test_a_name_that_is_no_part_of_a_file_name(name: str, world: World) -> None:
    world.offers(more(""), name=name)
    with pytest.raises(PackageError, match=r"the package bright 1.2 has a name that cannot be used"):
        load_model(name)


@pytest.mark.parametrize("check", ["raise ValueError('below 0')", "raise RuntimeError('below 0')"])
def test_options_that_refuse_a_value(check: str, world: World) -> None:
    options = OPTIONS.format(f"def __post_init__(self):\n        if self.gain < 0:\n            {check}")
    world.offers(options + "class M:\n" + SOUND + KIND.format("options=Options"))
    status, said = world.label("--brightness.gain", "-1")
    assert (status, "package bright 1.2 does not take its options" in said, "below 0" in said) == (2, True, True)
    assert world.label("--brightness.gain", "3")[0] == 0


def test_options_with_slots_and_with_names_of_ours(world: World) -> None:
    options = "@dataclass(frozen=True, slots=True)\nclass Options:\n    anew: int = 0\n    model_path: str = ''\n"
    world.offers(options + "class M:\n" + SOUND + KIND.format("options=Options"))
    assert world.label("--brightness.anew", "2", "--brightness.model-path", "x")[0] == 0


CLOSES = {
    "None": ("return None", ""),
    "one line": ("return 'goodbye'", "goodbye"),
    "lines": ("return ['good', 'bye']", "good bye"),
    "a number": (
        "return 3",
        "the package bright 1.2 fails in close(): close() should return lines of text, a list of str; it returned int",
    ),
    "an error": ("raise OSError('gone')", "the package bright 1.2 fails in close(): OSError: gone"),
}


@pytest.mark.parametrize("answer", CLOSES)
def test_what_close_returns(answer: str, world: World) -> None:
    """The work is done by then: the file is whole, and what is wrong is said."""
    body, words = CLOSES[answer]
    world.offers(more(f"    def close(self):\n        {body}"))
    status, said = world.label()
    assert (status, words in said) == (0, True)
    assert world.files == ["p.parquet"]


def test_a_close_that_nobody_awaits(world: World) -> None:
    world.offers(more("    async def close(self): ..."))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, said = world.label()
    assert (status, "close(): close() should close the model and return lines" in said) == (0, True)


def test_an_episode_that_the_model_refuses_is_left_out(world: World) -> None:
    world.offers(model("if episode.index: raise UnreadableError('too dark')\n        " + RETURNS.format("ramp(episode)")))
    status, said = world.label()
    assert (status, "episode 1 is left unknown: too dark" in said) == (1, True)


def test_plot_draws_whichever_head_there_is(world: World) -> None:
    for place, heads in enumerate(("dense", "mood")):
        package = f"bright{place}"
        world.offers(model(RETURNS.format(f"{{'{heads}': Curve(ramp(episode))}}")), name=heads, package=package)
        assert world.milepost("plot", world.dataset, "--model", heads, "--output-dir", world.folder / heads)[0] == 0
        assert world.label("--overwrite", name=heads)[0] == 0
        out = ("--progress", world.folder / "p.parquet", "--output-dir", world.folder / f"{heads}-file")
        assert world.milepost("plot", world.dataset, *out)[0] == 0
        assert world.milepost("render", world.dataset, *out, "--num-visualizations", "1")[0] == 0
        assert len(list((world.folder / heads).iterdir())) == 2
    assert world.label("--overwrite", "--head-mode", "dense", name="dense")[0] == 0
    assert "bright1 1.2 has no dense head; it has: mood" in world.label("--overwrite", "--head-mode", "dense", name="mood")[1]


def test_a_broken_package_does_not_keep_others_from_being_found(world: World) -> None:
    world.offers("raise RuntimeError('no licence')", name="a-broken", package="broken")
    sound = "@dataclass(frozen=True)\nclass Config:\n    gain: float = 1.0\nclass M:\n" + SOUND
    world.offers(sound + KIND.format("config=Config, make=lambda config, folder: M()"))
    assert type(make_reward_model(make_reward_model_config("brightness"))).__name__ == "M"
    with pytest.raises(ValueError, match=r"got dict; these could not be asked: .*package broken 1.2 cannot be imported: RuntimeError"):
        make_reward_model({})
    with pytest.raises(DataError, match="'a-broken' or 'brightness'"):
        load_model("nothing")


def test_what_a_package_makes_wrong_in_python(world: World) -> None:
    config = "@dataclass(frozen=True)\nclass Config:\n    gain: float = 1.0\n    pretrained_path: str | None = None\n"
    world.offers(config + KIND.format("config=Config, make=lambda config, folder: [][1]"))
    with pytest.raises(PackageError, match=r"bright 1.2 cannot be made: IndexError"):
        make_reward_model(make_reward_model_config("brightness"))
    with pytest.raises(ValueError, match=r"bright 1.2 cannot read a saved config"):
        make_reward_model_config("brightness", pretrained_path="x")


@pytest.mark.parametrize(("make", "words"), [
    (lambda: load_model("elapsed", banana=1), "the model 'elapsed' takes no option 'banana'; it takes: none"),
    (lambda: load_model("topreward", banana=1), "the model 'topreward' takes no option 'banana'; it takes: .*fps"),
    (lambda: load_model("sarm"), "no model at 'sarm': the model 'sarm' is loaded from the folder of a saved one"),
    (lambda: make_reward_model("elapsed"), "got str; make_reward_model_config makes one by name"),
    (lambda: make_reward_model_config("elapsed", banana=1), "has no field banana"),
])  # fmt: skip
def test_first_mistakes_in_python(make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        make()


def test_options_of_another_packages_model(world: World) -> None:
    world.offers("class Model:\n    def __init__(self, gain=1.0): ...\n" + SOUND)
    load_model("brightness", gain=2.0)
    with pytest.raises(DataError, match=r"bright 1.2 takes no option 'banana'; it takes: gain"):
        load_model("brightness", banana=1)
    with pytest.raises(PackageError, match=r"bright 1.2 has no from_pretrained"):
        registry.load(kind_of("brightness"), world.folder, "cpu", {})


def test_a_folder_that_is_called_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("elapsed", "sarm"):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text('{"type": "other"}')
    assert type(load_model("elapsed")).__name__ == "ElapsedModel"
    for path in ("./elapsed", Path("elapsed"), str(tmp_path / "elapsed"), "sarm"):
        with pytest.raises(DataError, match="type 'other'"):
            load_model(path)


def test_train_says_what_it_can_train(world: World) -> None:
    world.offers(more(""))
    out = ("--output-dir", world.folder / "model")
    status, said = world.milepost("train", world.dataset, "--model", "brightness", *out)
    assert status == 2
    assert "can train robometer, roboreward, sarm, success and value only" in said
    assert "of the package bright 1.2 with that package" in said
    assert "is a clock: there is nothing to train" in world.milepost("train", world.dataset, "--model=elapsed", *out)[1]
    assert "zero-shot" in world.milepost("train", world.dataset, "--model", "topreward", *out)[1]
    assert world.milepost("train", world.dataset, "--model", "nonsense", *out)[0] == 2


def test_an_option_of_a_broken_package_does_not_hide_the_fault(world: World) -> None:
    world.offers("raise RuntimeError('no licence')")
    status, said = world.label("--brightness.gain", "2")
    assert (status, "bright 1.2 cannot be imported: RuntimeError: no licence" in said) == (2, True)


def test_a_name_of_ours_is_warned_of_once_and_where_it_was_asked_for(world: World) -> None:
    world.offers(more(""), name="elapsed")
    code = "import milepost\nfor _ in range(2): milepost.load_model('elapsed')\nfrom milepost.models import kind_of\nkind_of('elapsed')\n"
    script = world.folder / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(world.folder / "bright"), *sys.path])}
    run = subprocess.run([sys.executable, "-W", "always", script], capture_output=True, text=True, check=True, env=environment)
    lines = [line for line in run.stderr.splitlines() if "offers a model" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{script}:2: DataWarning: the package bright 1.2 offers a model 'elapsed' too")
    shell = [sys.executable, "-m", "milepost", "label", str(world.dataset), "--model", "elapsed", "--output-path"]
    run = subprocess.run([*shell, str(world.folder / "p.parquet")], capture_output=True, text=True, check=True, env=environment)
    assert run.stderr.count("offers a model 'elapsed' too") == 1


def test_a_saved_model_of_a_broken_package(world: World) -> None:
    world.offers("class M:\n" + SOUND + "def load(*a, **o): raise OSError('half a file')\nModel = ModelKind('x', load)")
    folder = world.folder / "saved"
    folder.mkdir()
    (folder / "config.json").write_text('{"type": "brightness"}')
    status, said = world.label(name=str(folder))
    assert (status, "of the package bright 1.2 cannot be loaded: OSError: half a file" in said) == (2, True)
    with pytest.raises(DataError, match=r"bright 1.2 is loaded from the folder of a saved one"):
        load_model("brightness")


def test_the_warning_comes_in_python_too(world: World) -> None:
    registry._warn_of_shadows.cache_clear()
    world.offers(more(""), name="topreward")
    with pytest.warns(DataWarning, match=r"bright 1.2 offers a model 'topreward' too"):
        kind_of("topreward")
    milepost.ElapsedModel()
    assert Progress(3, np.zeros(2, np.float32)).episode == 3
