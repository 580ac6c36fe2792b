"""Stages corrected on the page: on disk as `annotate` would have written them, judged as it judges, never over somebody else's work."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import milepost.viewer.saving as saving
from annotator import NAMES as COVERING
from annotator import dataset_of, truth_of
from builders import build_dataset
from milepost.annotation.sources import read_annotations
from milepost.annotation.store import AnnotationStore
from milepost.annotation.subtasks import Subtask, SubtaskList
from milepost.cli.entry import main
from milepost.core.types import Segment
from milepost.datasets.annotations import ChangedError, write_annotations
from milepost.datasets.reader import open_dataset
from milepost.datasets.transaction import JOURNAL, replacing
from milepost.viewer.saving import version_of
from reviewed import LENGTHS, annotated_dataset, page_of, review_of, thirds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return annotated_dataset(tmp_path / "towels")


def objects(*segments: tuple[str, int, int]) -> list[dict[str, Any]]:
    return [{"name": name, "start": start, "stop": stop} for name, start, stop in segments]


def head(page: TestClient, number: int, name: str = "sparse") -> dict[str, Any]:
    return page.get(f"/api/episodes/{number}").json()["heads"][name]


def put(page: TestClient, number: int, segments: Any, version: str, **more: Any) -> Any:
    return page.put(f"/api/episodes/{number}/segments", json={"head": "sparse", "segments": segments, "version": version, **more})


def test_a_moved_border_is_on_disk_and_in_the_next_answers(root: Path) -> None:
    with page_of(review_of(root)) as page:
        tag, held = page.get("/api/episodes").headers["etag"], head(page, 1)
        wanted = objects(("reach", 0, 20), ("push", 20, 34))
        answer = put(page, 1, wanted, held["version"])
        assert answer.status_code == 200
        told = answer.json()
        assert told["segments"] == wanted
        assert told["version"] == head(page, 1)["version"] != held["version"]
        assert told["repairs"] == []
        assert told["heads"]["sparse"]["names"] == ["reach", "push"]
        assert head(page, 1)["true_stage"] == [0] * 20 + [1] * 14
        assert page.get("/api/episodes", headers={"if-none-match": tag}).status_code in (200, 304)
    assert read_annotations(root)[1]["sparse"] == (Segment("reach", 0, 20), Segment("push", 20, 34))
    assert [read_annotations(root)[n]["sparse"] for n in (0, 2, 3)] == [thirds(LENGTHS[n]) for n in (0, 2, 3)]


def test_the_files_are_those_that_annotate_writes(root: Path) -> None:
    """Every byte of meta/: the same as one call of `write_annotations`."""
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    segments = (Segment("reach", 0, 20), Segment("push", 25, 34))
    write_annotations(copy, {1: {"sparse": segments}}, overwrite=True)
    with page_of(review_of(root)) as page:
        assert put(page, 1, objects(("reach", 0, 20), ("push", 25, 34)), head(page, 1)["version"]).status_code == 200
    for path in sorted(path.relative_to(copy) for path in (copy / "meta").rglob("*") if path.is_file()):
        assert (root / path).read_bytes() == (copy / path).read_bytes(), path
    assert not list(root.rglob("*milepost-new"))


def test_an_annotation_is_removed(root: Path) -> None:
    with page_of(review_of(root)) as page:
        held = head(page, 2)
        told = put(page, 2, [], held["version"]).json()
        assert told["segments"] == head(page, 2)["segments"] == []
        assert page.get("/api/episodes").json()["annotated"]["sparse"] == [1, 1, 0, 1]
        assert put(page, 2, [], told["version"]).status_code == 200  # nothing there, nothing to write
        again = put(page, 2, objects(("push", 0, 26)), told["version"])
        assert again.json()["segments"] == objects(("push", 0, 26))
    assert open_dataset(root).stages["sparse"].names == ("reach", "push")


def test_the_last_annotation_is_removed_and_the_first_is_made(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "bare", lengths=(20, 20)).root
    with page_of(review_of(root)) as page:
        told = put(page, 0, objects(("grasp", 0, 8), ("lift", 8, 20)), version_of(())).json()
        assert told["heads"]["sparse"] == {"names": ["grasp", "lift"], "colours": ["#56b4e9", "#f0e442"], "source": "annotations", "own": 2}
        gone = put(page, 0, [], told["version"]).json()
        assert gone["segments"] == []
        assert gone["heads"]["sparse"]["names"] == ["grasp", "lift"]
        other = page.put(
            "/api/episodes/0/segments", json={"head": "dense", "segments": objects(("a", 0, 20)), "version": version_of(())}
        ).json()
        assert set(other["heads"]) == {"sparse", "dense"}


def test_new_stages_come_with_the_order_of_all(root: Path) -> None:
    with page_of(review_of(root)) as page:
        held = head(page, 0)
        wanted = objects(("reach", 0, 9), ("grasp", 9, 15), ("push", 15, 29))
        refused = put(page, 0, wanted, held["version"])
        assert refused.status_code == 422
        assert refused.json()["faults"] == ["unknown stage 'grasp'; the stages are: reach, push"]
        told = put(page, 0, wanted, held["version"], names=["reach", "grasp", "push"]).json()
        assert told["heads"]["sparse"]["names"] == ["reach", "grasp", "push"]
        assert told["heads"]["sparse"]["own"] == 3
        for names in (
            ["reach"],
            ["reach", "grasp", "Reach", "push"],
            ["reach", "grasp", ""],
            ["a\nb", "reach", "grasp", "push"],
            "reach",
            [3],
        ):
            answer = put(page, 0, wanted, told["version"], names=names)
            assert answer.status_code == 422, names
            assert answer.json()["faults"]
    assert open_dataset(root).stages["sparse"].names == ("reach", "grasp", "push")


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        (objects(("reach", 0, 10), ("push", 8, 34)), ["'push' starts at frame 8, before 'reach' ends at 10"]),
        (objects(("push", 20, 34), ("reach", 0, 20)), ["before 'push' ends"]),
        (objects(("reach", 0, 35)), ["ends at frame 35, the episode has 34"]),
        (objects(("reach", 5, 5)), ["at least one frame"]),
        (objects(("reach", -1, 5)), ["at least one frame"]),
        (objects(("", 0, 5)), ["should have a name"]),
        (objects(("fly", 0, 40), ("swim", 40, 50)), ["'fly'", "'swim'", "frame 40", "frame 50"]),
        ([{"name": "reach", "start": 0.5, "stop": 5}], ["whole numbers"]),
        ([{"name": "reach", "start": True, "stop": 5}], ["whole numbers"]),
        ([{"name": "reach", "start": 0}], ["whole numbers"]),
        ([["reach", 0, 5]], ["whole numbers"]),
        ([None, "x"], ["segment 1", "segment 2"]),
        ({"name": "reach"}, ["a list"]),
        (None, ["a list"]),
        ([{"name": "reach", "start": 0, "stop": 10**20}], ["ends at frame"]),
    ],
)  # fmt: skip
def test_what_is_no_annotation_is_not_written(root: Path, segments: Any, words: list[str]) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with page_of(review_of(root)) as page:
        answer = put(page, 1, segments, head(page, 1)["version"])
    assert answer.status_code == 422
    said = "\n".join(answer.json()["faults"])
    assert all(word in said for word in words), said
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_other_episodes_heads_and_bodies(root: Path) -> None:
    with page_of(review_of(root)) as page:
        version = head(page, 0)["version"]
        assert put(page, 9, [], version).status_code == 404
        assert page.put("/api/episodes/-1/segments", json={}).status_code == 404
        assert page.put("/api/episodes/0/segments", json={"head": "fine", "version": version}).status_code == 422
        for content in (b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"):
            answer = page.put("/api/episodes/0/segments", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 400, content[:20]
            assert set(answer.json()) == {"error"}


def test_somebody_else_was_faster(root: Path) -> None:
    """Another process, and `annotate --import`: the page hears what is there now, and nothing of theirs is lost."""
    with page_of(review_of(root)) as page:
        held = head(page, 1)
        script = f"""
from milepost.datasets.annotations import write_annotations
from milepost.core import Segment
write_annotations({str(root)!r}, {{1: {{"sparse": (Segment("push", 0, 34),)}}}}, overwrite=True)
"""
        subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        answer = put(page, 1, objects(("reach", 0, 20), ("push", 20, 34)), held["version"])
        assert answer.status_code == 409
        told = answer.json()
        assert told["segments"] == objects(("push", 0, 34))
        assert put(page, 1, objects(("reach", 0, 20), ("push", 20, 34)), told["version"]).status_code == 200
        table = root.with_name("fixed.csv")
        table.write_text("episode,head,name,start_frame,stop_frame\n1,sparse,reach,0,34\n")
        version = head(page, 1)["version"]
        assert main(["annotate", str(root), "--import", str(table)]) == 0
        assert put(page, 1, [], version).status_code == 409
        assert put(page, 0, objects(("reach", 0, 29)), head(page, 0)["version"]).status_code == 200  # another episode is no conflict
    assert read_annotations(root)[1]["sparse"] == (Segment("reach", 0, 34),)
    assert read_annotations(root)[0]["sparse"] == (Segment("reach", 0, 29),)


def test_nobody_can_write_between_the_look_and_the_writing(root: Path) -> None:
    """`write_annotations` looks once more under the lock that writers take."""
    with pytest.raises(ChangedError):
        write_annotations(root, {1: {"sparse": ()}}, expected={1: {"sparse": (Segment("reach", 0, 5),)}})
    assert read_annotations(root)[1]["sparse"] == thirds(34)
    write_annotations(root, {1: {"sparse": ()}}, expected={1: {"sparse": thirds(34)}})
    assert 1 not in read_annotations(root)


def test_another_writer_is_waited_for_a_while(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with page_of(review_of(root)) as page:
        version = head(page, 0)["version"]
        begun, end = threading.Event(), threading.Event()

        def hold() -> None:
            with replacing(root):
                begun.set()
                end.wait(20)

        other = threading.Thread(target=hold)
        other.start()
        assert begun.wait(20)
        monkeypatch.setattr(saving, "BUSY_S", 0.1)
        answer = put(page, 0, [], version)
        assert answer.status_code == 409
        assert "another process" in answer.json()["error"]
        assert answer.json()["version"] == version
        monkeypatch.setattr(saving, "BUSY_S", 20.0)
        threading.Timer(0.3, end.set).start()
        assert put(page, 0, [], version).status_code == 200
        other.join()


def test_an_interrupted_writer_is_finished_first(root: Path) -> None:
    """Killed after its journal stood: its change is made, and the page, which began before, hears of it."""
    path = root / "meta/episodes/chunk-000/file-001.parquet"
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    write_annotations(copy, {1: {"sparse": (Segment("push", 0, 34),)}}, overwrite=True)
    with page_of(review_of(root)) as page:
        held = head(page, 1)
        shutil.copy(copy / path.relative_to(root), path.with_name(f".{path.name}.milepost-new"))
        (root / JOURNAL).write_text(json.dumps({"files": [path.relative_to(root).as_posix()]}))
        answer = put(page, 1, [], held["version"])
        assert answer.status_code == 409
        assert answer.json()["segments"] == objects(("push", 0, 34))
    assert not (root / JOURNAL).exists()
    assert read_annotations(root)[1]["sparse"] == (Segment("push", 0, 34),)


def test_the_checks_of_annotate_where_a_model_was_asked(tmp_path: Path) -> None:
    """With the list of stages that it was asked with: order, gaps and missing stages are faults, a frame's gap is closed."""
    lengths = (80, 96)
    truth = truth_of(lengths, failed=(1,))
    root = dataset_of(tmp_path / "cubes", lengths, truth, failed=(1,))
    write_annotations(root, {n: {"sparse": truth[n]["sparse"]} for n in truth}, names={"sparse": COVERING["sparse"]}, overwrite=True)
    listed = SubtaskList(tuple(Subtask(name) for name in COVERING["sparse"]))
    told = {"subtasks": [vars(each) for each in listed], "covers": True}
    AnnotationStore(tmp_path / "cubes.annotations" / "sparse", {"stages": json.dumps(told)})
    reach, lift, place = truth[0]["sparse"]
    with page_of(review_of(root)) as page:
        version = head(page, 0)["version"]
        cases = {
            "gap": [("reach", 0, reach.stop - 8), ("lift", lift.start, lift.stop), ("place", place.start, 80)],
            "missing": [("reach", 0, lift.stop), ("place", place.start, 80)],
            "list has it before": [("lift", 0, lift.start), ("reach", lift.start, lift.stop), ("place", place.start, 80)],
            "no stage": [("reach", 0, reach.stop), ("lift", lift.start, lift.stop), ("place", place.start, 70)],
            "less than 0.20 s": [("reach", 0, 2), ("lift", 2, lift.stop), ("place", place.start, 80)],
        }
        for word, segments in cases.items():
            answer = put(page, 0, objects(*segments), version)
            assert answer.status_code == 422, word
            assert word in "\n".join(answer.json()["faults"])
        near = [("reach", 0, reach.stop - 1), ("lift", lift.start, lift.stop), ("place", place.start, 80)]
        told = put(page, 0, objects(*near), version).json()
        assert len(told["repairs"]) == 1
        assert [each["stop"] for each in told["segments"]][:1] == [each["start"] for each in told["segments"]][1:2]
        failed = head(page, 1)
        assert put(page, 1, objects(("reach", 0, 40), ("lift", 40, 96)), failed["version"]).status_code == 200  # it may end early
        new = [
            ("reach", 0, reach.stop),
            ("wait", reach.stop, lift.stop - 10),
            ("lift", lift.stop - 10, lift.stop),
            ("place", place.start, 80),
        ]
        names = ["reach", "wait", "lift", "place"]
        assert put(page, 0, objects(*new), told["version"], names=names).status_code == 200  # optional: episode 1 has it not
        assert put(page, 1, objects(("reach", 0, 50), ("lift", 50, 96)), head(page, 1)["version"]).status_code == 200


def test_a_hub_dataset_is_read_and_not_written(tmp_path: Path) -> None:
    """In the cache's layout: a snapshot whose files link to blobs."""
    real = annotated_dataset(tmp_path / "real")
    snapshot = tmp_path / "datasets--me--towels" / "snapshots" / "abc"
    for path in real.rglob("*"):
        if path.is_file():
            blob = tmp_path / "datasets--me--towels" / "blobs" / path.relative_to(real).as_posix().replace("/", "-")
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blob)
            link = snapshot / path.relative_to(real)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    with page_of(review_of(snapshot, review_file=tmp_path / "marks.json")) as page:
        about = page.get("/api/dataset").json()
        assert not about["editable"]
        assert "cache" in about["why_not_editable"]
        answer = put(page, 0, [], head(page, 0)["version"])
        assert answer.status_code == 403
        assert page.put("/api/marks", json={"episode": 0, "mark": "keep"}).status_code == 200
    assert read_annotations(snapshot)[0]["sparse"] == thirds(29)
