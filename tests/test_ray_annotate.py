"""`milepost annotate --ray`: the same answers and files as one process, one gate for the whole job, and nothing asked twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from annotator import NAMES, Annotator, Words, dataset_of, truth_of
from builders import TOP
from milepost.annotation.sources import read_annotations
from milepost.cli.entry import main
from milepost.scale import Cluster
from milepost.testing import Fault, chat_server

LENGTHS = (60, 71, 82, 93, 104, 115, 66, 77, 88, 99)
TRUTH = truth_of(LENGTHS, seed=3)
SPARSE, DENSE = (",".join(NAMES[head]) for head in ("sparse", "dense"))
BOTH = ("--sparse-subtasks", SPARSE, "--dense-subtasks", DENSE)
TWO = ("--ray", "--actors", "2", "--cpus-per-actor", "0.5")
KEY = "sk-no-log-has-this-9b1c"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Starts one cluster for all tests of this file. The server's key is not in its environment."""
    with Cluster().joined():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("source") / "cubes", LENGTHS, TRUTH)


@pytest.fixture
def dataset(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(source, tmp_path / "cubes"))


def words_of(server: Any, dataset: Path, *more: object) -> list[str]:
    asked = ("annotate", dataset, *BOTH, "--base-url", server.url, "--model", "tiny", "--num-visualizations", 0, "--video-key", TOP)
    return [str(word) for word in (*asked, *more)]


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_same_files_as_one_process(dataset: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(shutil.copytree(source, tmp_path / "one" / "cubes"))
    codes, counts = [], []
    for folder, more in ((one, ()), (dataset, TWO)):
        annotator = Annotator(TRUTH, LENGTHS, noise_s=0.1, fault=lambda e, h, a: {1: "chatter", 4: "400", 5: "429 once"}.get(e, ""))
        with chat_server(model=Words(), script=annotator) as server:
            codes.append(main(words_of(server, folder, *more)))
        counts.append((len(annotator.asked), capsys.readouterr()))
    assert codes == [1, 1]
    assert files(one) == files(dataset)
    assert files(one.with_name("cubes.annotations")) == files(dataset.with_name("cubes.annotations"))
    (asked, before), (asked_there, after) = counts
    assert asked == asked_there
    assert before.out == after.out.replace(str(tmp_path), str(tmp_path / "one"))
    for said in (before.err, after.err):
        assert "episode 1, sparse: no annotation, after 3 answers: no JSON" in said
        assert "episode 4: not answered" in said
        assert f"{asked} requests" in said
    assert "10 episodes by" in after.err
