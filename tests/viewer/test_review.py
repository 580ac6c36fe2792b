"""What the page is told: every number again by a slow and plain way, unknown as null, and what is damaged said and not fatal."""

import base64
import json
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotator import dataset_of, truth_of
from builders import TOP, build_dataset, edit_info, set_column
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.reader import open_dataset
from milepost.figures.style import STAGE_COLOURS
from milepost.metrics.evaluation import truth_of as truth_by_evaluate
from milepost.metrics.events import KINDS, count_events, find_events
from milepost.metrics.scores import final
from milepost.viewer.review import Review
from milepost.weights.file import write_weights_file
from reviewed import LENGTHS, NAMES, annotated_dataset, review_of, thirds, write_progress


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return annotated_dataset(tmp_path / "towels")


def whole(review: Review) -> dict:
    """The list when everything is counted; it can be written as JSON without NaN."""
    assert review.events(30)["ready"]
    listed = review.episodes()
    json.dumps(listed, allow_nan=False)
    return listed


def test_the_list_agrees_with_a_plain_count(root: Path, rng: np.random.Generator) -> None:
    curves = {n: np.clip(np.linspace(0, 1, length) + rng.normal(0, 0.1, length), 0, 1) for n, length in enumerate(LENGTHS)}
    curves[1][5:9], curves[2][:] = np.nan, np.nan
    write_progress(root, "topreward", curves, stages=2)
    listed = whole(review_of(root))
    assert listed["index"] == [0, 1, 2, 3]
    assert listed["length"] == list(LENGTHS)
    assert listed["success"] == [True, False, True, False]  # next.success, of the rows
    assert listed["annotated"] == {"sparse": [1, 1, 1, 1]}
    assert listed["task"] == [0, 1, 0, 1]
    said = listed["models"]["topreward"]["sparse"]
    for n, curve in enumerate(curves.values()):
        curve = curve.astype(np.float32)
        known = curve[~np.isnan(curve)]
        assert said["final"][n] == (round(final(curve), 4) if len(known) else None)
        assert said["highest"][n] == (round(float(known.max()), 4) if len(known) else None)
        points = list(base64.b64decode(said["spark"][n]))
        at = [round(i * (len(curve) - 1) / 31) for i in range(32)]
        assert points == [255 if np.isnan(curve[i]) else round(float(curve[i]) * 254) for i in at]
        assert {kind: said["events"][kind][n] for kind in KINDS} == count_events(find_events(curve, 20.0))
    straight = [np.linspace(0, 1, length, dtype=np.float32) for length in LENGTHS]
    expected = [np.nanmean(np.abs(a - b)) if n != 2 else None for n, (a, b) in enumerate(zip(straight, curves.values(), strict=True))]
    assert listed["disagreement_of"] == "sarm / topreward"
    assert [None if d is None else pytest.approx(d, abs=1e-4) for d in expected] == listed["disagreement"]


def test_one_model_is_compared_with_the_truth(tmp_path: Path) -> None:
    """The annotation's here; the simulator's where there is one."""
    root = annotated_dataset(tmp_path / "towels")
    listed = whole(review_of(root))
    dataset = open_dataset(root)
    truths = [truth_by_evaluate(dataset[n], dataset.stages["sparse"]).progress for n in range(4)]
    expected = [float(np.nanmean(np.abs(np.linspace(0, 1, len(truth)) - truth))) for truth in truths]
    assert listed["disagreement_of"] == "sarm / truth"
    assert listed["disagreement"] == pytest.approx(expected, abs=1e-4)
    lengths = (40, 52)
    simulated = dataset_of(tmp_path / "sim", lengths, truth_of(lengths))
    write_progress(simulated, "sarm", {n: np.linspace(0, 0.5, length) for n, length in enumerate(lengths)})
    listed = whole(review_of(simulated))
    assert listed["disagreement"] == pytest.approx([0.25, 0.25], abs=1e-3)  # truth.progress goes straight from 0 to 1
    assert listed["success"] == [True, True]


def test_one_episode_in_full(root: Path) -> None:
    config = json.dumps({"sparse_subtask_names": ["reach", "shove"]})
    write_progress(root, "other", {n: np.full(length, 0.25) for n, length in enumerate(LENGTHS)}, stages=2, config=config)
    weight = np.linspace(0, 1, sum(LENGTHS), dtype=np.float32)
    write_weights_file(root / "weights.parquet", np.arange(sum(LENGTHS)), weight, {})
    review = review_of(root, weights=root / "weights.parquet")
    found = review.episode(1)
    json.dumps(found, allow_nan=False)
    first, length = LENGTHS[0], LENGTHS[1]
    assert (found["row"], found["length"], found["task"], found["fps"]) == (first, length, "lift the block", 20.0)
    head = found["heads"]["sparse"]
    assert head["names"] == ["reach", "push", "shove"]  # the dataset's first, so that they keep their colours
    assert head["colours"] == [colour.lower() for colour in STAGE_COLOURS[:3]]
    assert head["segments"] == [{"name": "reach", "start": 0, "stop": 17}, {"name": "push", "start": 17, "stop": 34}]
    assert head["curves"]["sarm"] == [round(i / 33, 4) for i in range(34)]
    assert head["curves"]["other"] == [0.25] * 34
    assert head["probabilities"]["other"] == [0] * 17 + [2] * 17  # "reach" is the dataset's, "shove" is not
    assert head["true_stage"] == [0] * 17 + [1] * 17
    assert head["truth_source"] == "annotation"
    share = (14 / 29 + 17 / 34 + 13 / 26 + 20 / 40) / 4  # of the first stage, eq. 1
    assert head["truth"][16] == pytest.approx(share * 16 / 17, abs=1e-4)
    assert head["truth"][-1] is None  # a failed attempt: how far it was in its last stage nobody knows
    assert found["weight"] == [round(float(w), 4) for w in weight[first : first + length]]
    assert whole(review)["weight_kept"][1] == pytest.approx(weight[first : first + length].mean(), abs=1e-4)
    about = review.about()
    assert about["heads"]["sparse"] == {"names": head["names"], "colours": head["colours"], "source": "annotations", "own": 2}
    assert [model["name"] for model in about["models"]] == ["other", "sarm"]
    assert about["editable"]
    assert about["problems"] == []


def test_nothing_known_at_all(tmp_path: Path) -> None:
    """No model, no annotation, no camera, no state: still a page."""
    build_dataset(tmp_path / "bare", cameras={}, state=0)
    review = review_of(tmp_path / "bare")
    listed = whole(review)
    assert listed["models"] == {}
    assert listed["disagreement"] is None
    assert listed["disagreement_of"] is None
    assert listed["weight_kept"] is None
    found = review.episode(2)
    assert found["heads"]["sparse"]["segments"] == []
    assert "truth" not in found["heads"]["sparse"]
    assert review.about()["heads"] == {"sparse": {"names": [], "colours": [], "source": "none", "own": 0}}


def test_unknown_everywhere(root: Path) -> None:
    write_progress(root, "sarm", {n: np.full(length, np.nan) for n, length in enumerate(LENGTHS)}, stages=2)
    review = review_of(root)
    columns = whole(review)["models"]["sarm"]["sparse"]
    assert columns["final"] == columns["highest"] == [None] * 4
    assert set(base64.b64decode(columns["spark"][0])) == {255}
    assert all(counts == [0] * 4 for counts in columns["events"].values())
    assert whole(review)["disagreement"] == [None] * 4
    assert review.episode(0)["heads"]["sparse"]["curves"]["sarm"] == [None] * 29


def test_damaged_and_foreign_files_are_said_and_left_out(root: Path, tmp_path: Path) -> None:
    (root / "torn_progress.parquet").write_bytes((root / "sarm_progress.parquet").read_bytes()[:500])
    other = annotated_dataset(tmp_path / "other", lengths=(30, 30, 30))
    shutil.copy(other / "sarm_progress.parquet", root / "foreign_progress.parquet")
    unmarked = pq.read_table(other / "sarm_progress.parquet").replace_schema_metadata({})
    pq.write_table(unmarked, root / "rows_progress.parquet")
    shutil.copy(root / "sarm_progress.parquet", root / "high_progress.parquet")
    set_column(root / "high_progress.parquet", "progress_sparse", np.full(sum(LENGTHS), 1.5, np.float32))
    shutil.copy(root / "sarm_progress.parquet", root / "config_progress.parquet")
    table = pq.read_table(root / "config_progress.parquet")
    pq.write_table(table.replace_schema_metadata({"milepost.config": "{"}), root / "config_progress.parquet")
    fine = pq.read_table(root / "sarm_progress.parquet")
    words = fine.set_column(fine.column_names.index("progress_sparse"), "progress_sparse", pa.array(["x"] * len(fine)))
    changed = fine.set_column(fine.column_names.index("progress_sparse"), "progress_sparse", pa.array([0.5] * len(fine), pa.float32()))
    for name, table in (("words", words), ("empty", fine.slice(0, 0)), ("twice", pa.concat_tables([fine, changed]))):
        pq.write_table(table, root / f"{name}_progress.parquet")
    review = review_of(root)
    assert list(review.models) == ["sarm"]
    said = "\n".join(review.about()["problems"])
    for word in ("torn_progress", "'other'", "rows_progress", "high_progress", "config_progress", "words_", "empty_", "twice_"):
        assert word in said
    assert len(review.about()["problems"]) == 8
    assert whole(review)["models"]["sarm"]["sparse"]["final"][0] == pytest.approx(1, abs=0.05)


def test_a_torn_data_file_costs_what_is_in_it_alone(root: Path) -> None:
    path = root / "data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    review = review_of(root)
    listed = whole(review)
    assert listed["success"][:2] == [True, False]
    assert any("file-001" in problem for problem in review.about()["problems"])
    assert review.episode(1)["length"] == LENGTHS[1]
    with pytest.raises(DataError, match="file-001"):
        review.episode(2)


@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
def test_an_episode_with_a_damaged_annotation_is_shown_without_it(root: Path) -> None:
    """So that it can be annotated anew on the page."""
    columns = [[["reach"], ["reach"], ["reach"]], [[0], [9], [0]]]
    for path, rows in ((root / "meta/episodes/chunk-000/file-001.parquet", slice(None)),):
        set_column(path, "sparse_subtask_names", columns[0][rows])
        set_column(path, "sparse_subtask_start_frames", columns[1][rows])
        set_column(path, "sparse_subtask_end_frames", [[5], [3], [5]])
    review = review_of(root)
    assert whole(review)["annotated"]["sparse"] == [1, 1, 0, 1]
    assert review.episode(2)["heads"]["sparse"]["segments"] == []


def test_some_episodes_alone(root: Path) -> None:
    review = review_of(root, episodes="1,3")
    listed = whole(review)
    assert listed["index"] == [1, 3]
    assert listed["length"] == [34, 40]
    assert len(listed["models"]["sarm"]["sparse"]["spark"]) == 2
    with pytest.raises(KeyError):
        review.episode(0)


def test_what_another_process_writes_is_seen(root: Path) -> None:
    review = review_of(root)
    whole(review)  # what is counted in the background is part of the key
    before = review.key()
    assert review.key() == before
    write_annotations(root, {0: {"sparse": (Segment("reach", 0, 29),)}, 1: {"sparse": ()}}, overwrite=True)
    assert review.key() != before
    assert review.episode(0)["heads"]["sparse"]["segments"] == [{"name": "reach", "start": 0, "stop": 29}]
    assert whole(review)["annotated"]["sparse"] == [1, 0, 1, 1]
    assert whole(review)["disagreement"][1] is None  # compared with what is annotated now
    edit_info(root, total_episodes=4, fps=20)
    assert review.episode(0)["length"] == 29
    shutil.rmtree(root / "meta")
    shutil.copytree(annotated_dataset(root.with_name("longer"), lengths=(29, 34, 26, 41)) / "meta", root / "meta")
    with pytest.raises(DataError, match="another dataset"):
        review.episodes()


def test_dense_heads_and_truths(tmp_path: Path) -> None:
    """Each head has its own stages; the simulator's truth is that of the sparse ones."""
    lengths = (80, 96)
    truth = truth_of(lengths, failed=(1,))
    root = dataset_of(tmp_path / "sim", lengths, truth, failed=(1,))
    write_annotations(root, truth, overwrite=True)
    write_progress(root, "sarm", {n: (np.linspace(0, 1, length), np.linspace(0, 1, length)) for n, length in enumerate(lengths)})
    review = review_of(root)
    listed = whole(review)
    assert listed["annotated"] == {"sparse": [1, 1], "dense": [1, 1]}
    assert set(listed["models"]["sarm"]) == {"sparse", "dense"}
    found = review.episode(0)["heads"]
    assert found["sparse"]["truth_source"] == "simulator"
    assert found["dense"]["truth_source"] == "annotation"
    assert len(found["dense"]["names"]) == 5
    assert found["sparse"]["segments"] == [{"name": s.name, "start": s.start, "stop": s.stop} for s in truth[0]["sparse"]]


def test_many_threads_at_once_get_what_one_gets(tmp_path: Path) -> None:
    """Readers keep the last rows they read: not in each other's way."""
    lengths = tuple(range(20, 44))
    root = annotated_dataset(tmp_path / "many", lengths=lengths, per_file=3)
    review = review_of(root)
    expected = [json.dumps(review.episode(n)) for n in range(len(lengths))]
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for n in np.random.default_rng(seed).permutation(len(lengths)).tolist():
            if json.dumps(review.episode(n)) != expected[n]:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_pictures_in_parquet_and_older_datasets(tmp_path: Path) -> None:
    for version, codec in (("v3.0", "png"), ("v2.1", "libx264")):
        root = tmp_path / f"{version}-{codec}"
        build_dataset(root, version=version, cameras={TOP: codec}, lengths=LENGTHS)
        write_annotations(root, {0: {"sparse": thirds(29)}}, names={"sparse": NAMES}, overwrite=True)
        review = review_of(root)
        assert review.about()["version"] == version
        assert whole(review)["annotated"]["sparse"] == [1, 0, 0, 0]
        assert not any(math.isnan(value) for value in whole(review)["length"])
