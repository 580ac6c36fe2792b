"""Releases that are known to break are refused where they are first used, with the line that mends it."""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from milepost.core import versions
from milepost.core.errors import DataError
from milepost.vlm.loading import naming_faults

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What importlib.metadata says is installed; nothing else is."""
    there: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(versions, "version", version)
    versions.require.cache_clear()
    yield there
    versions.require.cache_clear()


def declared() -> dict[str, set[str]]:
    """Package -> the bounds that pyproject.toml gives it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found: dict[str, set[str]] = {}
    for line in map(Requirement, lines):
        found.setdefault(canonicalize_name(line.name), set()).update(map(str, line.specifier))
    return found


def test_the_bounds_are_those_of_the_wheel() -> None:
    ranges = declared()
    assert not {name: bounds for name, bounds in versions.WORKING.items() if not set(bounds.split(",")) <= ranges[name]}


@pytest.mark.parametrize(
    ("package", "release"),
    [
        ("transformers", "5.3.0"),
        ("transformers", "6.0.0"),
        ("transformers", "4.57.6"),
        ("av", "14.4.0"),
        ("httpx2", "3.0"),
        ("wandb", "0.18.7"),
    ],
)
def test_a_release_that_breaks_is_refused(installed: dict[str, str], package: str, release: str) -> None:
    installed[package] = release
    with pytest.raises(DataError) as refusal:
        versions.require(package)
    assert str(refusal.value).endswith(f"pip install '{package}{versions.WORKING[package]}'")
    assert release in str(refusal.value)


@pytest.mark.parametrize("release", ["5.4", "5.4.0", "5.24.0", "5.99.1", "5.30.0.dev0"])
def test_a_release_that_works_passes_and_so_does_none(installed: dict[str, str], release: str) -> None:
    versions.require("transformers")
    installed["transformers"] = release
    versions.require.cache_clear()
    versions.require("transformers")


def load() -> object:
    return versions.load("transformers", purpose="models", install="milepost[vlm]")


def test_what_cannot_be_imported_says_why(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(error: ImportError | None) -> None:
        def import_module(name: str) -> object:
            if error is not None:
                raise error
            return ModuleType(name)

        monkeypatch.setattr(versions, "importlib", SimpleNamespace(import_module=import_module))

    importing(None)
    assert load().__name__ == "transformers"
    importing(ModuleNotFoundError("No module named 'transformers'", name="transformers"))
    with pytest.raises(DataError, match=r"^models need transformers: pip install 'milepost\[vlm\]'$"):
        load()
    importing(ModuleNotFoundError("No module named 'regex'", name="regex"))
    with pytest.raises(DataError, match=r"which needs regex: pip install regex$"):
        load()
    importing(ImportError("tokenizers>=0.22.0,<=0.23.0 is required, but found tokenizers==0.23.3.\nTry: `pip install transformers -U`"))
    with pytest.raises(DataError, match=r"found tokenizers==0\.23\.3; pip install 'transformers>=5\.4,<6'$"):
        load()


def test_the_feature_refuses_when_first_used(installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from milepost.encoders.clip import ClipEncoder
    from milepost.vlm.loading import load_engine

    installed["transformers"] = "4.57.6"
    monkeypatch.setitem(sys.modules, "transformers", None)
    for opening in (load_engine, ClipEncoder.load):
        with pytest.raises(DataError, match=r"transformers 4\.57\.6 is installed, .* pip install 'transformers>=5\.4,<6'"):
            opening(str(tmp_path))


BROKEN = {
    "no such operator": ("raise RuntimeError('no operator nms')", r"because visionish is broken: no operator nms"),
    "a package that is not there": ("import nowhere_at_all", r"whole_adapters, which needs nowhere_at_all: pip install nowhere_at_all"),
}


@pytest.mark.parametrize("hides", [True, False], ids=["hidden", "plain"])
@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_named_and_not_who_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], fault: str, hides: bool
) -> None:
    """transformers hides the fault of a package that it imports behind a ModuleNotFoundError that names none."""
    code, words = BROKEN[fault]
    (tmp_path / "visionish.py").write_text(code + "\n")
    hiding = "try:\n    import visionish\nexcept Exception as error:\n    raise ModuleNotFoundError('Could not import') from error\n"
    (tmp_path / "whole_adapters.py").write_text(hiding if hides else "import visionish\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        versions.load("whole_adapters", purpose="LoRA adapters", install="milepost[finetune]")
    assert "None" not in str(caught.value)
    assert str(caught.value).startswith("LoRA adapters need whole_adapters, which ")
    with pytest.raises(DataError, match=r"visionish|nowhere_at_all|no operator nms"), naming_faults("a model"):
        versions.importlib.import_module("whole_adapters")
