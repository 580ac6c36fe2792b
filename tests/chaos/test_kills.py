"""SIGKILL at random moments and at chosen system calls, SIGTERM and SIGINT: the same command then ends as if nothing had been, the
dataset's own files never change, and nothing is left behind.

`make chaos` (MILEPOST_CHAOS=N) draws N times as many moments. A failure names its seed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from numbered import write_numbered
from zygote import Zygote, zygote

ROUNDS = int(os.environ.get("MILEPOST_CHAOS", "1"))
TRAIN = ("--preset", "small", "--steps", 12, "--batch-size", 4, "--gap-s", 0.2, "--device", "cpu", "--annotation-mode", "sparse_only",
         "--holdout", 0)  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """A command line in a folder with `set` (a dataset) and `model`, and what it makes there."""

    words: Sequence[object]
    makes: str


NEAR = "set/near_progress.parquet"
VERBS = {
    "label": Verb(("label", "set", "--model", "model", "--no-cache", "--output-path", "out.parquet"), "out.parquet"),
    "clock": Verb(("label", "set", "--model", "elapsed", "--output-path", "out.parquet"), "out.parquet"),
    "weigh": Verb(("weigh", "set", "--progress", NEAR, "--output-path", "out.parquet", "--chunk-size", 5), "out.parquet"),
    "train": Verb(("train", "set", "--output-dir", "out", *TRAIN), "out"),
    "copy": Verb(("copy", "set", "--progress", NEAR, "--output-dir", "out"), "out"),
    "render": Verb(("render", "set", "--episode", 0, "--progress-file", NEAR, "--output-dir", "out"), "out"),
    "export": Verb(("view", "set", "--progress-file", NEAR, "--export-html", "out.html", "--episodes", 0), "out.html"),
}
EVENTS = ("os.rename", "open", "fsync")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with zygote(tmp_path_factory.mktemp("zygote")) as process:
        yield process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, nursery: Zygote) -> Path:
    """A dataset, a model, and by verb what an undisturbed run makes."""
    folder = tmp_path_factory.mktemp("world")
    write_numbered(folder / "set", lengths=(30, 24, 36))
    trained = nursery.run(*_in(folder, ("train", "set", "--output-dir", "model", *TRAIN)))
    assert trained.wait() == 0, trained.words
    for name, verb in VERBS.items():
        there = _fresh(folder, folder / f"undisturbed-{name}")
        run = nursery.run(*_in(there, verb.words))
        assert run.wait() in (0, 1), run.words
    return folder


def _fresh(world: Path, there: Path) -> Path:
    there.mkdir()
    shutil.copytree(world / "set", there / "set")
    shutil.copytree(world / "model", there / "model")
    return there


def _in(folder: Path, words: Sequence[object]) -> list[object]:
    """The command with its files in this folder."""
    places = ("set", "model", "out")
    return [folder / str(word) if str(word).split("/")[0].split(".")[0] in places else word for word in words]


def _content(path: Path) -> dict[str, str]:
    """What an output is, without what may differ from run to run: times, paths, metadata of parquet, a log's pace."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    out = {}
    for file in files:
        name = "" if file == path else file.relative_to(path).as_posix()
        if file.suffix == ".parquet":
            out[name] = str(pq.read_table(file).replace_schema_metadata(None).to_pydict())
        elif file.suffix in (".html", ".md", ".mp4", ".json", ".jsonl"):
            out[name] = "there"
        else:
            out[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return out


def _hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def _check(world: Path, there: Path, name: str, nursery: Zygote, where: str) -> None:
    """After the kill: the same command, and everything is as it should be."""
    verb = VERBS[name]
    again = nursery.run(*_in(there, verb.words))
    code = again.wait()
    if code == 2 and any(words in again.words for words in ("exists already", "a trained model in")):  # the kill came after all was done
        code = 0
    assert code in (0, 1), f"{where}: {again.words[-2000:]}"
    assert "Traceback" not in again.words, where
    assert _hashes(there / "set") == _hashes(world / "set"), where
    assert _content(there / verb.makes) == _content(world / f"undisturbed-{name}" / verb.makes), where
    assert sorted(p.name for p in there.iterdir()) == sorted({"set", "model", verb.makes}), where
    assert not [p for p in (there / "set").parent.rglob("*") if p.name.endswith((".milepost", ".partial", ".lock"))], where


@pytest.mark.parametrize("name", VERBS)
def test_killed_at_a_system_call(name: str, world: Path, nursery: Zygote, tmp_path: Path) -> None:
    for seed in range(2 * ROUNDS):
        rng = np.random.default_rng([seed, sum(name.encode())])
        die_at = (EVENTS[int(rng.integers(3))], int(rng.integers(1, 9)))
        there = _fresh(world, tmp_path / f"{seed}")
        nursery.run(*_in(there, VERBS[name].words), die_at=die_at).wait()
        _check(world, there, name, nursery, f"{name}, seed {seed}, killed at {die_at}")
        shutil.rmtree(there)


@pytest.mark.parametrize("die_at", [("os.remove", 1), ("os.remove", 2), ("os.rmdir", 1)])
def test_killed_while_it_removes_what_is_done(die_at: tuple[str, int], world: Path, nursery: Zygote, tmp_path: Path) -> None:
    """The unfinished folder goes at once: half of it would be taken for somebody else's."""
    there = _fresh(world, tmp_path / "there")
    assert nursery.run(*_in(there, VERBS["clock"].words), die_at=die_at).wait() == -signal.SIGKILL
    _check(world, there, "clock", nursery, f"killed at {die_at}")


@pytest.mark.parametrize("name", VERBS)
def test_stopped_at_a_random_moment(name: str, world: Path, nursery: Zygote, tmp_path: Path) -> None:
    for seed in range(ROUNDS):
        rng = np.random.default_rng([seed, 7, sum(name.encode())])
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[int(rng.integers(3))]
        there = _fresh(world, tmp_path / f"{seed}")
        child = nursery.run(*_in(there, VERBS[name].words))
        time.sleep(float(rng.uniform(0.02, 0.8)))
        child.kill(number)
        code = child.wait()
        assert code in (0, 1, -signal.SIGKILL, 130, 143, -signal.SIGTERM, -signal.SIGINT), child.words
        if number != signal.SIGKILL and code in (130, 143):
            left = [p.name for p in there.rglob("*") if p.name.endswith(".milepost")]
            assert not left, f"{name}, seed {seed}: {left}"
        _check(world, there, name, nursery, f"{name}, seed {seed}, {number.name}")
        shutil.rmtree(there)


def test_two_labels_on_one_dataset_never_mix(world: Path, nursery: Zygote, tmp_path: Path) -> None:
    """Of two at once one writes and the other names it; whatever the order, the file is one model's."""
    for seed in range(2 * ROUNDS):
        there = _fresh(world, tmp_path / f"{seed}")
        both = [nursery.run(*_in(there, VERBS[name].words)) for name in ("label", "clock")]
        codes = [child.wait() for child in both]
        assert 0 in codes, [child.words for child in both]
        for code, child in zip(codes, both, strict=True):
            assert code == 0 or "is being written by another process" in child.words or "made with another" in child.words, child.words
        curve = _content(there / "out.parquet")[""]
        assert curve in (_content(world / f"undisturbed-{name}" / "out.parquet")[""] for name in ("label", "clock"))
        shutil.rmtree(there)


def test_two_trains_in_one_folder_are_one_train(world: Path, nursery: Zygote, tmp_path: Path) -> None:
    there = _fresh(world, tmp_path / "there")
    both = [nursery.run(*_in(there, VERBS["train"].words)) for _ in range(2)]
    codes = sorted(child.wait() for child in both)
    assert codes[0] == 0, [child.words for child in both]
    assert codes[1] == 2
    assert any(word in child.words for child in both for word in ("is being written by another process", "there is a trained model"))
    assert _content(there / "out") == _content(world / "undisturbed-train" / "out")
