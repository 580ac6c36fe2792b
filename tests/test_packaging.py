"""The Dockerfile and docs/install.md agree with the package; what is not on every system is refused by name, or works without it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from milepost.core.errors import DataError
from milepost.core.outputs import atomic_folder, atomic_path, output_lock
from milepost.datasets.transaction import replacing

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COPIED = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]


def test_every_extra_has_a_row() -> None:
    rows = re.findall(r"^\| (`.+?`) \| .+ \| .+ \|$", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(PROJECT["optional-dependencies"])


def test_the_wheel_of_the_page_is_that_of_the_project() -> None:
    wheels = set(re.findall(r"milepost-[\d.]+-py3-none-any\.whl", (ROOT / "docs" / "install.md").read_text()))
    assert wheels == {f"milepost-{PROJECT['version']}-py3-none-any.whl"}


def test_the_dockerfile_copies_what_is_there_and_is_let_through() -> None:
    sources = [source for line in COPIED for source in line]
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(let_through) == sorted(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_dockerfile_copies_what_the_build_reads() -> None:
    sources = {source for line in COPIED for source in line}
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "src"} <= sources


def test_the_dockerfile_has_a_python_that_was_tested_and_its_constraints() -> None:
    (version,) = re.findall(r"^FROM python:(3\.\d+)-slim$", DOCKERFILE, re.MULTILINE)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    named = set(re.findall(r"constraints/(py\d+)\.txt", DOCKERFILE))
    assert named == {f"py{version.replace('.', '')}"}
    pins = (ROOT / "constraints" / f"{named.pop()}.txt").read_text()
    assert len(re.findall(r"^torch==\S+$", pins, re.MULTILINE)) == 1


def test_the_container_runs_the_command_without_rights() -> None:
    lines = DOCKERFILE.splitlines()
    assert lines.index("USER milepost") < lines.index('ENTRYPOINT ["milepost"]')
    assert "milepost" in PROJECT["scripts"]


def test_annotations_are_refused_on_windows_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meta").mkdir()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DataError, match="Linux and macOS only, and this is win32"), replacing(tmp_path):
        pass


def test_no_module_needs_one_system_when_it_is_imported() -> None:
    """Modules that only some systems have are imported where they are used."""
    pattern = re.compile(r"^(?:import|from) (?:fcntl|resource|pwd|grp|termios|msvcrt|winreg)\b", re.MULTILINE)
    assert [path.name for path in (ROOT / "src").rglob("*.py") if pattern.search(path.read_text())] == []


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_outputs_are_written_on_every_system(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    with atomic_path(tmp_path / "a.txt") as path:
        path.write_text("a")
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "c.txt").write_text("c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b", "c.txt"]


def test_a_lock_file_that_can_be_neither_written_nor_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows while it is locked."""

    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "it is in use", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        patch.setattr(Path, "unlink", refuse)
        with output_lock(tmp_path / "a.txt"):
            pass
    with output_lock(tmp_path / "a.txt"):
        (tmp_path / "a.txt").write_bytes(b"a")
    assert (tmp_path / "a.txt").read_bytes() == b"a"
