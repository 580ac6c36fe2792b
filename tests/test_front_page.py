"""The front page: each public name has an example, and every example of the package does what it says, on a small dataset."""

import doctest
import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.testing import write_example

ROOT = Path(__file__).parents[1]
FILES = [path for path in sorted((ROOT / "src" / "milepost").rglob("*.py")) if ">>>" in path.read_text()]
CONSTANTS = {"TOPREWARD_FEATURE_PREFIX", "__version__"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find where they run: the dataset "dots", two of its six episodes failed, with a progress file."""
    folder = tmp_path_factory.mktemp("front")
    write_example(folder / "dots")
    return folder


def test_every_public_name_has_an_example() -> None:
    assert not [name for name in milepost.__all__ if name not in CONSTANTS and ">>>" not in (getattr(milepost, name).__doc__ or "")]


@pytest.mark.parametrize("name", sorted(set(milepost.__all__) - CONSTANTS))
def test_an_example_stands_alone(name: str, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs `import milepost` alone, and says what the dataset is that it takes."""
    public = getattr(milepost, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs={"milepost": milepost})
    assert '"dots' not in str([example.source for example in test.examples]) or "milepost.testing.write_example(" in public.__doc__
    shutil.copytree(example_folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_examples_do_what_they_say(path: Path, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(module_name(path))
    names = {**vars(module), "milepost": milepost, "np": np}
    for number, test in enumerate(each for each in doctest.DocTestFinder().find(module, globs=names) if each.examples):
        shutil.copytree(example_folder, tmp_path / str(number))
        monkeypatch.chdir(tmp_path / str(number))
        said: list[str] = []
        result = doctest.DocTestRunner().run(test, out=said.append)
        assert not result.failed, "".join(said)
