"""What somebody else's files may decide: never where pictures and keys go, and never which files are renamed or written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import build_dataset
from milepost.annotation.store import AnnotationStore, Answer
from milepost.cli.entry import joined_numbers, main
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.metadata import read_metadata
from milepost.datasets.reader import open_dataset
from milepost.datasets.records import parse_episodes
from milepost.datasets.subtask_index import read_subtask_index, successes, write_subtask_index
from milepost.datasets.transaction import JOURNAL, finish_interrupted, replacing
from milepost.models.factory import make_reward_model, make_reward_model_config
from milepost.models.registry import load_model
from milepost.models.topreward.config import TOPRewardConfig
from milepost.progress.store import comparable, made_alike
from milepost.progress.table import read_progress
from milepost.testing import Fault, chat_server

SECRET = "AKIA-very-secret"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return build_dataset(tmp_path / "small").root


def saved(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"type": "topreward", "vlm_name": "tiny", **fields}))
    return folder


# A config that was loaded


@pytest.mark.parametrize("names", [("base_url", "api_key_env"), ("base_url",), ("api_key_env",)])
def test_a_saved_config_sends_nothing_anywhere(small: Path, tmp_path: Path, monkeypatch, capsys, names: tuple[str, ...]) -> None:
    """A listener stands where the config points: no byte arrives, by the command line or by any way in Python."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with chat_server() as listener:
        fields = {name: {"base_url": listener.url, "api_key_env": "AWS_SECRET_ACCESS_KEY"}[name] for name in names}
        model = saved(tmp_path / "model", **fields)
        assert main(["label", str(small), "--model", str(model), "--num-prefixes", "2"]) == 2
        for way in (
            lambda: load_model(model),
            lambda: make_reward_model_config("topreward", pretrained_path=str(model)),
            lambda: make_reward_model(TOPRewardConfig(pretrained_path=str(model))),
        ):
            with pytest.raises(DataError, match=rf"names {' and '.join(names)}: a saved config does not decide"):
                way()
        given = ("--base-url", listener.url)  # asked for by name, and still not with the variable that the file names
        assert main(["label", str(small), "--model", str(model), "--num-prefixes", "2", *given]) == 2
        assert listener.connections == 0
    assert SECRET not in "".join(capsys.readouterr())


def test_where_a_model_runs_is_never_read_from_a_file(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", device="cuda", pretrained_path="/etc", concurrency=10**6, max_memory=1, base_url=None)
    config = load_model(model).config
    assert (config.device, config.pretrained_path, config.concurrency, config.max_memory) == (None, None, 8, None) or config.device == "cpu"


def test_a_hub_config_names_no_path_of_this_machine(tmp_path: Path) -> None:
    commit = "0" * 40
    (tmp_path / "models--ada--judge" / "snapshots").mkdir(parents=True)
    model = saved(tmp_path / "models--ada--judge" / "snapshots" / commit, vlm_name="/home/ada/vlm")
    with pytest.raises(DataError, match=r"its author's machine .*give --vlm-name"):
        load_model(model)
    assert load_model(model, vlm_name="Qwen/Qwen3-VL-8B-Instruct").config.vlm_name.startswith("Qwen")


# A journal that came with the dataset


@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "/etc/hostname",
        "meta/../../victim",
        "meta/stats.json",
        "victim.parquet",
        "data/../../x.parquet",
        "meta/episodes/../../../v.parquet",
        "",
    ],
)
def test_a_journal_renames_nothing_elsewhere(small: Path, name: str) -> None:
    victim = small.parent / "victim"
    victim.write_text("mine")
    (small.parent / ".victim.milepost-new").write_text("theirs")
    (small / JOURNAL).write_text(json.dumps({"files": ["meta/info.json", name]}))
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="remove it if it came with the dataset"):
        finish_interrupted(small)
    assert victim.read_text() == "mine"
    assert before == {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}


@pytest.mark.parametrize("text", ["[" * 5000, '{"files": 3}', '{"files": [null]}', "[]", "", '{"other": 1}'])
def test_a_journal_that_is_none_is_refused(small: Path, text: str) -> None:
    (small / JOURNAL).write_text(text)
    with pytest.raises(DataError, match="journal"):
        finish_interrupted(small)


def test_a_journal_through_a_link_is_refused(small: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(small / "meta/episodes", elsewhere)
    (small / "meta/episodes").symlink_to(elsewhere)
    (small / JOURNAL).write_text(json.dumps({"files": ["meta/episodes/chunk-000/file-000.parquet"]}))
    with pytest.raises(DataError, match="a link leads out"):
        finish_interrupted(small)


def test_rows_are_not_rewritten_outside_the_dataset(small: Path) -> None:
    """However the metadata came to name such a file: the door itself refuses."""
    with replacing(small) as new:
        for name in ("../other/data.parquet", "/elsewhere/data.parquet", "notes.txt"):
            with pytest.raises(DataError):
                new(name)
    assert not (small / JOURNAL).exists()


# Work that goes on


def test_a_store_whose_provenance_was_being_written_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "towels.annotations"
    for left in (".provenance.json.0123abcd-999999999-7.aaaa.milepost", ".provenance.json.x1y2z3", ".episode-000001.json.q"):
        folder.mkdir(exist_ok=True)
        (folder / left).write_text('{"dataset"')
    store = AnnotationStore(folder, {"dataset": "d"})
    store.add(0, {"sparse": Answer((Segment("reach", 0, 3),))})
    assert AnnotationStore(folder, {"dataset": "d"}).answers().keys() == {0}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="folder of something else"):
        AnnotationStore(tmp_path / "other", {"dataset": "d"})


MADE = {"model_path": "m", "config": '{"fps": 2, "default_task": null}', "settings": '{"num_prefixes": 4}', "milepost_version": "1"}


@pytest.mark.parametrize(
    ("there", "alike"),
    [
        ({}, True),
        ({"settings": '{"episodes": "0-2", "num_prefixes": 4}'}, True),
        ({"milepost_version": "0"}, True),
        ({"settings": '{"num_prefixes": 5}'}, False),
        ({"model_path": "other"}, False),
    ],
)
def test_which_episodes_were_asked_for_makes_no_other_file(there: dict, alike: bool) -> None:
    assert made_alike({**MADE, **there}, MADE) is alike


def test_an_instruction_for_blank_episodes_is_new_only_where_there_was_none() -> None:
    now = {**MADE, "config": '{"fps": 2, "default_task": "fold"}'}
    assert made_alike(MADE, now)
    assert not made_alike(now, MADE)
    assert not made_alike(now, {**MADE, "config": '{"fps": 2, "default_task": "wash"}'})
    assert comparable(MADE, MADE)["settings"] == {"num_prefixes": 4}


def test_episodes_left_out_or_added_keep_what_is_labelled(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*more: str) -> int:
        return main(["label", str(small), "--model", "elapsed", *more])

    assert run("--episodes", "2") == 0
    first = read_progress(small / "elapsed_progress.parquet")
    assert set(first.episode_index) == {2}
    assert run("--episodes", "0", "2") == 0
    assert set(read_progress(small / "elapsed_progress.parquet").episode_index) == {0, 2}
    before = (small / "elapsed_progress.parquet").stat().st_mtime_ns
    assert run("--episodes", "0") == 0
    assert (small / "elapsed_progress.parquet").stat().st_mtime_ns == before
    assert run() == 0
    assert set(read_progress(small / "elapsed_progress.parquet").episode_index) == {0, 1, 2}


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["d", "--episodes", "0", "1", "2", "--stride", "2"], ["d", "--episodes", "0,1,2", "--stride", "2"]),
        (["--episodes", "0-9,12", "3", "towels"], ["--episodes", "0-9,12,3", "towels"]),
        (["--episodes", "0,", "1", "7-8"], ["--episodes", "0,1,7-8"]),
        (["--chunk-size", "50", "1"], ["--chunk-size", "50", "1"]),
        (["--episodes", "all"], ["--episodes", "all"]),
    ],
)
def test_episodes_as_lerobot_writes_them(words: list[str], joined: list[str]) -> None:
    assert joined_numbers(words) == joined
    if joined[-1] != "all" and "--episodes" in joined:
        assert parse_episodes(joined[joined.index("--episodes") + 1])


# Stages for every frame


@pytest.fixture
def indexed(small: Path) -> tuple[Path, dict]:
    """The dataset with its stages as subtask_index alone."""
    lengths = {n: record.length for n, record in read_metadata(small).episodes.items()}
    truth = {n: {"sparse": (Segment("reach", 0, length // 3), Segment("lift", length // 3, length))} for n, length in lengths.items()}
    write_subtask_index(small, truth)
    return small, truth


def test_stages_for_every_frame_are_said_and_brought_over(indexed, capsys) -> None:
    root, truth = indexed
    main(["info", str(root)])
    assert "--from-subtask-index sparse" in capsys.readouterr().out
    train = ["train", str(root), "--output-dir", str(root.parent / "m"), "--annotation-mode", "sparse_only", "--preset", "small"]
    assert main([*train, "--steps", "1"]) == 2
    assert "annotate DATASET --from-subtask-index sparse" in capsys.readouterr().err
    assert main(["annotate", str(root), "--from-subtask-index", "sparse"]) == 0
    assert {n: record.segments for n, record in read_metadata(root).episodes.items()} == truth
    assert open_dataset(root).stages["sparse"].names == ("reach", "lift")
    assert main([*train, "--steps", "1", "--batch-size", "4", "--device", "cpu", "--no-cache"]) == 0
    assert json.loads((root.parent / "m/config.json").read_text())["sparse_subtask_names"] == ["reach", "lift"]
    write_annotations(root, {0: {"sparse": (Segment("reach", 0, 5),)}}, overwrite=True)
    assert main(["annotate", str(root), "--from-subtask-index", "sparse"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["annotate", str(root), "--from-subtask-index", "sparse", "--overwrite", "--episodes", "0"]) == 0
    assert read_metadata(root).episodes[0].segments == truth[0] == read_subtask_index(root)[0]


def test_a_dataset_that_never_had_the_column(small: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["annotate", str(small), "--from-subtask-index", "sparse"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "has no column 'subtask_index'" in said
    assert "download" not in said


def test_successes_are_those_of_the_episodes(small: Path) -> None:
    for path in sorted((small / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        numbers = table["episode_index"].to_numpy()
        ends = np.append(np.diff(numbers) != 0, True)
        told = pa.array(ends & (numbers != 1))
        kept = table.drop_columns(["next.success"]) if "next.success" in table.column_names else table
        pq.write_table(kept.append_column("next.success", told), path)
    info = json.loads((small / "meta/info.json").read_text())
    info["features"]["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    (small / "meta/info.json").write_text(json.dumps(info))
    dataset = open_dataset(small)
    found = successes(dataset.files, dataset.meta, dataset.episode_indices)
    assert found == {episode.index: episode.success for episode in dataset}
    assert found[1] is False


# Tasks without words


def test_blank_tasks_are_seen_before_the_first_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_dataset(tmp_path / "blank").root
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    words = next(name for name in table.column_names if name != "task_index")
    blank = table.set_column(table.schema.get_field_index(words), words, pa.array([" \u2026 "] * len(table)))
    pq.write_table(blank.replace_schema_metadata(table.schema.metadata), path)
    for entries in (root / "meta/episodes").rglob("*.parquet"):
        rows = pq.read_table(entries)
        tasks = pa.array([[" \u2026 "]] * len(rows))
        pq.write_table(rows.set_column(rows.schema.get_field_index("tasks"), "tasks", tasks), entries)
    with chat_server(script=lambda number, body: Fault(500)) as listener:
        for words in (
            ["annotate", str(root), "--sparse-subtasks", "a,b", "--base-url", listener.url, "--model", "tiny"],
            ["label", str(root), "--model", "topreward", "--vlm-name", "tiny", "--base-url", listener.url, "--num-prefixes", "2"],
        ):
            assert main(words) == 2
            assert "no episode has a task in words" in capsys.readouterr().err
        assert listener.bodies == []
