"""Annotations of one kind from everywhere: a dataset, a file, a store, the simulator's truth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from builders import build_dataset
from milepost.annotation.sources import read_annotations, read_truth
from milepost.annotation.spreadsheet import to_file
from milepost.annotation.store import AnnotationStore, Answer
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.reader import open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.writer import write_dataset
from milepost.metrics.evaluation import truth_of

DATA = Path(__file__).parents[1] / "data"
NAMES = ("reach", "move", "finish")
STAGES = ([0, 0, 1, 1, 0, 1, 2, 2, 2, 2], [0, 0, 0, 1, 1, 1], [2, 2, 0, 1])
SUCCESS = (8, 6, 4)
"""Frame from which an attempt is done; its length if never."""


@pytest.fixture
def simulated(tmp_path) -> Path:
    recordings = []
    for stage, done in zip(STAGES, SUCCESS, strict=True):
        n = len(stage)
        columns = {
            "truth.stage": np.array(stage, np.int64),
            "truth.progress": np.linspace(0, 1, n, dtype=np.float32),
            "next.success": np.arange(n) >= done,
        }
        recordings.append(Recording("push", np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32), {}, columns=columns))
    write_dataset(tmp_path / "simulated", recordings, fps=10, proportions={"sparse": {"reach": 0.4, "move": 0.3, "finish": 0.3}})
    return tmp_path / "simulated"


def test_the_simulators_truth(simulated):
    truth = read_truth(simulated)
    assert truth[0]["sparse"] == (
        Segment("reach", 0, 2), Segment("move", 2, 4), Segment("reach", 4, 5), Segment("move", 5, 6), Segment("finish", 6, 8)
    )  # fmt: skip
    assert truth[1]["sparse"] == (Segment("reach", 0, 3), Segment("move", 3, 6))
    assert truth[2]["sparse"] == (Segment("finish", 0, 2), Segment("reach", 2, 3), Segment("move", 3, 4))
    for episode in open_dataset(simulated):
        stages = open_dataset(simulated).stages["sparse"]
        told = truth_of(episode, stages).stage
        for segment in truth[episode.index]["sparse"]:
            assert set(told[segment.start : segment.stop]) == {NAMES.index(segment.name)}
    assert read_truth(simulated, ("a", "b", "c"))[1]["sparse"] == (Segment("a", 0, 3), Segment("b", 3, 6))
    with pytest.raises(DataError, match="there are 2 names: a, b"):
        read_truth(simulated, ("a", "b"))


def test_annotating_a_simulated_dataset_leaves_its_truth(simulated):
    before = read_truth(simulated)
    write_annotations(simulated, {0: {"sparse": (Segment("reach", 0, 5), Segment("move", 5, 10))}}, names={"sparse": NAMES})
    assert read_truth(simulated) == before


def test_no_truth_without_a_simulator(tmp_path):
    with pytest.raises(DataError, match=r"has no column 'truth\.stage'"):
        read_truth(DATA / "dataset_v3")


def test_a_dataset_a_file_and_a_store_say_the_same(tmp_path):
    root = shutil.copytree(DATA / "dataset_v3", tmp_path / "set")
    shutil.copytree(DATA / "dataset_v3_annotated", root, dirs_exist_ok=True)
    held = read_annotations(root)
    assert sorted(held) == [0, 1, 2, 4, 5]
    assert held[2]["sparse"] == (
        Segment("reach the object", 20, 40),
        Segment("move the object", 60, 100),
        Segment("finish the task", 100, 120),
    )
    for suffix in ("csv", "json"):
        to_file(tmp_path / f"set.{suffix}", held, 20.0)
        assert read_annotations(tmp_path / f"set.{suffix}") == held
    store = AnnotationStore(tmp_path / "set.annotations", {"model": "tiny"})
    for number, heads in held.items():
        store.add(number, {head: Answer(segments) for head, segments in heads.items()})
    assert read_annotations(tmp_path / "set.annotations") == held == store.annotations()


def test_nothing_annotated_is_nothing(tmp_path):
    assert read_annotations(build_dataset(tmp_path / "bare", cameras={}).root) == {}
    with pytest.raises(DataError, match="is not a LeRobot dataset"):
        read_annotations(tmp_path)
