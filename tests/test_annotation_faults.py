"""One episode whose annotation cannot be true: it is named, every verb goes on with the others and ends with exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from milepost.annotation.sources import read_annotations
from milepost.cli.entry import main
from milepost.core.errors import DataWarning
from milepost.core.stages import Attempt, Stages, alike, doubts
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.reader import open_dataset
from milepost.datasets.records import frames_of
from milepost.datasets.validation import validate
from odd_datasets import edit_entries, save, v3

BAD = 2
SOUND = (["reach", "lift", "place"], [0, 4, 8], [4, 8, 12])
FAULTS: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "overlap": (["reach", "lift", "place"], [0, 4, 6], [6, 8, 12]),
    "negative": (["reach", "lift", "place"], [-3, 4, 8], [4, 8, 12]),
    "beyond the end": (["reach", "lift", "place"], [0, 4, 8], [4, 8, 90]),
    "backwards": (["reach", "lift", "place"], [0, 4, 8], [4, 2, 12]),
    "lengths differ": (["reach", "lift"], [0, 4, 8], [4, 8, 12]),
    "blank": (["reach", " ", "place"], [0, 4, 8], [4, 8, 12]),
    "unknown stage": (["reach", "Lift", "place"], [0, 4, 8], [4, 8, 12]),
}


def annotated(root: Path, bad: tuple[list[Any], list[Any], list[Any]] = SOUND, *, shares: dict[str, float] | None = None) -> Path:
    """Six episodes of 12 frames at 10 fps, of which episode 2 has another annotation."""
    v3(root, (12,) * 6)

    def annotate(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            names, starts, stops = bad if entry["episode_index"] == BAD else SOUND
            entry |= {
                "sparse_subtask_names": names, "sparse_subtask_start_frames": starts, "sparse_subtask_end_frames": stops,
                "sparse_subtask_start_times": [start / 10 for start in starts], "sparse_subtask_end_times": [stop / 10 for stop in stops],
            }  # fmt: skip

    edit_entries(root, annotate)
    save(root / "meta/temporal_proportions_sparse.json", shares or {"reach": 0.3, "lift": 0.3, "place": 0.4})
    return root


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_training_goes_on_without_it(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = annotated(tmp_path / "set", FAULTS[name])
    train = ["train", str(root), "--preset", "small", "--steps", "2", "--batch-size", "4", "--device", "cpu", "--no-cache"]
    mode = ["--annotation-mode", "sparse_only", "--holdout", "0.2"]
    assert main([*train, *mode, "--output-dir", str(tmp_path / "model")]) == 1
    err = words(capsys)
    assert f"episode {BAD} is left out: its sparse annotation" in err
    assert (tmp_path / "model/model.safetensors").is_file()
    assert (tmp_path / "model/evaluation.json").is_file()


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
@pytest.mark.parametrize("name", ["overlap", "negative", "unknown stage"])
def test_the_other_verbs_go_on(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = annotated(tmp_path / "set", FAULTS[name])
    assert main(["label", str(root), "--model", "elapsed"]) == 0  # which needs no annotation
    capsys.readouterr()
    assert main(["evaluate", str(root)]) == 1
    out = capsys.readouterr()
    assert "5 episodes against: annotation" in out.out
    assert f"episode {BAD} is left out: its sparse annotation" in " ".join(out.err.split())
    assert main(["weigh", str(root)]) == 0
    assert main(["plot", str(root), "--episodes", "1-3", "--output-dir", str(tmp_path / "plots")]) == 1
    assert f"episode {BAD} is drawn without its annotation: its sparse annotation" in words(capsys)
    assert len(list((tmp_path / "plots").rglob("*.png"))) == 3
    assert main(["view", str(root), "--export-html", str(tmp_path / "page.html")]) == 1
    assert f"episode {BAD}" in words(capsys)
    assert any(finding.severity == "error" and finding.episode == BAD for finding in validate(root).findings)


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
def test_films_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = annotated(tmp_path / "set", FAULTS["overlap"])
    assert main(["label", str(root), "--model", "elapsed"]) == 0
    assert main(["render", str(root), "--episodes", "1-2", "--output-dir", str(tmp_path / "films")]) == 1
    assert f"episode {BAD} is drawn without its annotation" in words(capsys)
    assert len(list((tmp_path / "films").rglob("*.mp4"))) == 2


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
def test_no_episode_that_can_be_used_is_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = annotated(tmp_path / "set", shares={"pick": 0.5, "put": 0.5})
    train = ["train", str(root), "--preset", "small", "--annotation-mode", "sparse_only", "--output-dir", str(tmp_path / "model")]
    assert main(train) == 2
    assert "no episode has an annotation that can be true; episode 0: its sparse annotation is wrong: unknown stage 'reach'" in words(
        capsys
    )
    assert not list((tmp_path / "model").glob("*"))


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
@pytest.mark.parametrize("name", ["overlap", "negative", "lengths differ"])
def test_it_is_corrected_while_others_are_wrong_too(tmp_path: Path, name: str) -> None:
    root = annotated(tmp_path / "set", FAULTS[name])
    edit_entries(root, lambda entries: entries[5].update(sparse_subtask_start_frames=[-1, 4, 8]))
    mended = (Segment("reach", 0, 6), Segment("lift", 6, 8), Segment("place", 8, 12))
    write_annotations(root, {BAD: {"sparse": mended}}, overwrite=True)
    dataset = open_dataset(root)
    assert dataset[BAD].segments["sparse"] == mended
    assert dataset[BAD].annotation_faults == {}
    assert "sparse" in dataset[5].annotation_faults  # which stays as it stood
    assert dataset.meta.episodes[5].entry["sparse_subtask_start_frames"] == [-1, 4, 8]
    with pytest.warns(DataWarning, match="episode 5: its sparse annotation"):
        assert sorted(read_annotations(root)) == [0, 1, 2, 3, 4]


def lists(starts: list[float], stops: list[float], start_s: list[float], stop_s: list[float]) -> dict[str, Any]:
    return {"names": ["a", "b"], "start_frames": starts, "end_frames": stops, "start_times": start_s, "end_times": stop_s}


@pytest.mark.parametrize(
    ("raw", "clash", "stops"),
    [
        (lists([0, 5], [5, 12], [0, 0.5], [0.5, 1.2]), "", [5, 12]),
        (lists([0, 5], [5, 12], [0, 0.6], [0.6, 1.2]), "", [5, 12]),  # a frame is rounding
        (lists([0, 5], [5, 12], [0, 1], [1, 1]), "", [5, 12]),  # whole seconds are
        (lists([0, 5], [5, 12], [0, 0.2], [0.2, 1.2]), "the frames count", [5, 12]),
        (lists([0, 15], [15, 36], [0, 0.5], [0.5, 1.2]), "the frames are those of 30 fps, and the dataset has 10", [5, 12]),
        (lists([0, 5], [5, 12], [0, 1.5], [1.5, 3.6]), "the frames count", [5, 12]),  # seconds of another rate
        (lists([7, 0], [12, 5], [0, 0.5], [0.5, 1.2]), "the frames count", [12, 5]),  # not in the order of the seconds
        (lists([0, 5], [5, 12], [0, float("nan")], [0.5, 1.2]), "", [5, 12]),
    ],
)
def test_frames_against_seconds(raw: dict[str, Any], clash: str, stops: list[int]) -> None:
    """An episode of 12 frames at 10 fps."""
    read, said = frames_of(raw, 12, 10.0)
    assert clash in said
    assert bool(clash) == bool(said)
    assert read["end_frames"] == stops


def test_a_contradiction_is_said(tmp_path: Path) -> None:
    root = annotated(tmp_path / "set")
    edit_entries(root, lambda entries: entries[3].update(sparse_subtask_end_times=[0.1, 0.8, 1.2]))
    with pytest.warns(
        DataWarning, match="episode 3, sparse: its frames and seconds contradict each other: a border at frame 4 is said to be"
    ):
        assert open_dataset(root)[3].segments["sparse"][0] == Segment("reach", 0, 4)
    assert [(f.code, f.severity, f.episode) for f in validate(root).findings if f.code == "segment-times"] == [
        ("segment-times", "warning", 3)
    ]


def test_names_that_look_alike() -> None:
    assert alike(["reach", "Reach", "lift", "pick up", " pick  up", "place"]) == [("reach", "Reach"), ("pick up", " pick  up")]


def attempt(number: int, stages: str) -> Attempt:
    return Attempt(number, "tidy", [Segment(name, 10 * k, 10 * k + 10) for k, name in enumerate(stages.split())], True)


@pytest.mark.parametrize(
    ("attempts", "shares", "said"),
    [
        (["reach lift", "lift reach", "reach lift"], (0.5, 0.5), "in 1 of 3 annotated episodes 'lift' comes before 'reach'"),
        (["reach lift", "Reach lift"], (0.5, 0.5), "'reach' and 'Reach' differ by case or white space alone"),
        (["reach lift", "reach lift"], (1.0, 0.0), "stage 'lift' has a share of 0, and 2 annotated episodes show it"),
        (["reach lift", "reach lift"], (0.5, 0.5), ""),
        (["reach", "reach"], (1.0, 0.0), ""),
    ],
)
def test_what_may_be_meant_otherwise(attempts: list[str], shares: tuple[float, ...], said: str) -> None:
    found = doubts([attempt(number, stages) for number, stages in enumerate(attempts)], Stages(("reach", "lift"), shares))
    assert len(found) == bool(said)
    assert said in "".join(found)
