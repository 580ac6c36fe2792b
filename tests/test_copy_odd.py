"""Copies of odd datasets: what LeRobot can open, with what was asked for. Damage is repeated only when told, stamps never silently."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.cli.entry import main
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import validate
from odd_datasets import (
    CAMERA,
    DATA,
    EPISODES,
    FILM,
    FPS,
    LENGTHS,
    data_v21,
    drawn,
    edit_entries,
    edit_info,
    film,
    film_v21,
    put,
    said,
    save_lines,
    table_of,
    v3,
    v21,
)  # fmt: skip


def copied(root: Path, *words: object, label: bool = True) -> Path:
    """The copy with a clock's progress."""
    if label:
        assert main(["label", str(root), "--model", "elapsed"]) in (0, 1)
    out = root.with_name(root.name + "-copy")
    assert main(["copy", str(root), "--output-dir", str(out), *map(str, words)]) == 0
    return out


def clock(root: Path) -> dict[int, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {episode.index: episode.columns["progress"] for episode in open_dataset(root)}


def require_clock(root: Path, numbers: tuple[int, ...] = (0, 1, 2)) -> None:
    progress = clock(root)
    assert tuple(progress) == numbers
    for values in progress.values():
        np.testing.assert_allclose(values, np.linspace(0, 1, len(values)), atol=1e-6)


def test_uncompressed_data(tmp_path: Path) -> None:
    root = v3(tmp_path / "set")
    put(root / DATA, "index", lambda table: table["index"], compression="NONE")
    out = copied(root)
    require_clock(out)
    assert pq.read_metadata(out / DATA).row_group(0).column(0).compression == "UNCOMPRESSED"
    assert validate(out).healthy


def test_stray_rows_are_nan(tmp_path: Path) -> None:
    root = v3(tmp_path / "set")
    edit_entries(root, lambda rows: rows.pop())
    edit_info(root, lambda info: info.update(total_episodes=2, total_frames=21))
    out = copied(root)
    require_clock(out, (0, 1))
    assert np.isnan(pq.read_table(out / DATA)["progress"].to_numpy()[21:]).all()


def test_an_index_of_floats_and_one_that_restarts(tmp_path: Path) -> None:
    root = v3(tmp_path / "floats")
    put(root / DATA, "index", np.arange(36.0))
    require_clock(copied(root))
    root = v3(tmp_path / "restarts", files=[[0], [1, 2]])
    put(root / "data/chunk-000/file-001.parquet", "index", np.arange(24), pa.int64())
    require_clock(copied(root))


def test_folders_that_are_links(tmp_path: Path) -> None:
    root = v3(tmp_path / "set")
    for name in ("data/chunk-000", f"videos/{CAMERA}"):
        disk = tmp_path / "disk" / name.replace("/", "-")
        disk.parent.mkdir(exist_ok=True)
        shutil.move(root / name, disk)
        (root / name).symlink_to(disk)
    out = copied(root)
    require_clock(out)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / FILM).read_bytes() == (root / FILM).read_bytes()


def test_v21(tmp_path: Path) -> None:
    root = v21(tmp_path / "set")
    stats = {"action": {key: [0.0] for key in ("min", "max", "mean", "std")} | {"count": [1]}}
    save_lines(root / "meta/episodes_stats.jsonl", [{"episode_index": number, "stats": stats} for number in range(3)])
    out = copied(root)
    require_clock(out)
    lines = [json.loads(line) for line in (out / "meta/episodes_stats.jsonl").read_text().splitlines()]
    assert [line["stats"]["progress"]["count"] for line in lines] == [[length] for length in LENGTHS]
    assert [line["stats"]["action"] for line in lines] == [stats["action"]] * 3
    assert film_v21(out, 1).read_bytes() == film_v21(root, 1).read_bytes()
    assert validate(out).healthy


@pytest.mark.parametrize("content", ["empty", "unfinished"])
def test_files_that_no_episode_needs_are_left_out(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = v3(tmp_path / "set")
    stray = root / "data/chunk-000/file-001.parquet"
    if content == "empty":
        pq.write_table(table_of(0, range(1)).slice(0, 0), stray)
    else:
        stray.write_bytes(b"PAR1" + bytes(99))
    out = copied(root)
    assert "not in the copy: data/chunk-000/file-001.parquet" in capsys.readouterr().err.replace("\n", " ")
    assert not (out / stray.relative_to(root)).exists()
    assert validate(out).healthy


def test_damage_is_not_repeated_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = v3(tmp_path / "set")
    put(root / DATA, "note", np.arange(36.0))
    assert main(["label", str(root), "--model", "elapsed"]) == 0
    capsys.readouterr()
    assert main(["copy", str(root), "--output-dir", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "columns that info.json does not list: note" in message
    assert "--even-damaged" in message
    assert not (tmp_path / "out").exists()
    require_clock(copied(root, "--even-damaged", label=False))


def clocked(root: Path, films: object = film) -> Path:
    v21(root, films=films)
    for number in range(len(LENGTHS)):
        times = (np.arange(LENGTHS[number]) * 0.137 + 0.021).astype(np.float32)
        put(data_v21(root, number), "timestamp", pa.array(times))
    return root


def test_stamps_of_a_real_clock_are_written_anew_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clocked(tmp_path / "set")
    assert not validate(root).healthy
    assert "milepost copy --restamp" in validate(root).findings[0].message
    capsys.readouterr()
    out = copied(root, "--restamp", label=False)
    assert "36 of 36 written anew as frame / 10 fps, the worst was 0.539 s off" in capsys.readouterr().out.replace("\n", " ")
    assert validate(out).healthy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for episode in open_dataset(out):
            np.testing.assert_array_equal(episode.columns["timestamp"], (np.arange(len(episode)) / FPS).astype(np.float32))
            pictures = next(episode.camera(CAMERA).chunks(99))
            assert [said(picture) for picture in pictures] == episode.state[:, 0].tolist()
    before = pq.read_table(data_v21(root, 1)).drop_columns(["timestamp"])
    assert pq.read_table(data_v21(out, 1)).drop_columns(["timestamp"]).equals(before)


def test_stamps_stay_where_pictures_and_rows_do_not_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clocked(tmp_path / "set", films=lambda path, images: film(path, [drawn(50000), *images]))
    assert main(["copy", str(root), "--output-dir", str(tmp_path / "out"), "--restamp"]) == 2
    assert "holds 13 pictures for 12 rows" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_restamping_v3_renews_the_statistics(tmp_path: Path) -> None:
    root = v3(tmp_path / "set")
    put(root / DATA, "timestamp", lambda table: pa.array((np.arange(36) * 0.11).astype(np.float32)))
    edit_entries(root, lambda rows: [row.update({"stats/timestamp/max": [99.0], "stats/action/max": [1.0]}) for row in rows])
    out = copied(root, "--restamp", label=False)
    table = pq.read_table(out / EPISODES)
    assert [value[0] for value in table["stats/timestamp/max"].to_pylist()] == pytest.approx([1.1, 0.8, 1.4])
    assert table["stats/action/max"].to_pylist() == [[1.0]] * 3


def test_without_progress_there_is_nothing_to_copy_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["copy", str(v3(tmp_path / "set")), "--output-dir", str(tmp_path / "out")]) == 2
    assert "make one with milepost label" in capsys.readouterr().err
