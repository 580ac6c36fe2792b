"""Files that are not what their names say: what the messages tell, and what `info` sees without decoding everything."""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.cli.entry import main
from milepost.core.errors import DataError, UnreadableError
from milepost.core.files import read_json, require_plain_file
from milepost.datasets.parquet import null_images
from milepost.datasets.reader import open_dataset
from milepost.datasets.stamps import rewriting
from milepost.datasets.validation import validate
from odd_datasets import (
    CAMERA,
    DATA,
    EPISODES,
    FILM,
    FPS,
    PICTURE,
    drawn,
    edit_entries,
    edit_info,
    film,
    lost_bytes,
    png,
    put,
    sixteen_bits,
    v3,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 1234567\n"


def refusal(root: Path, number: int = 1) -> str:
    """Why an episode is not read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError) as caught:
            list(open_dataset(root).episode(number).camera(CAMERA).chunks())
    return str(caught.value)


def errors(root: Path) -> str:
    return "\n".join(finding.message for finding in validate(root).findings if finding.severity == "error")


def cells(root: Path, make: Callable[[int], object], kind: pa.DataType = PICTURE) -> Path:
    v3(root, kind="image")
    put(root / DATA, CAMERA, pa.array([make(row) for row in range(36)], kind))
    return root


@pytest.mark.parametrize("place", [DATA, FILM, EPISODES, "meta/info.json", "meta/tasks.parquet"])
def test_a_pointer_of_git_lfs_is_named_wherever_it_stands(tmp_path: Path, place: str) -> None:
    (v3(tmp_path / "set") / place).write_text(POINTER)
    assert "git lfs pull" in refusal(tmp_path / "set")
    assert "git-LFS pointer" in errors(tmp_path / "set")


def test_a_pointer_in_place_of_a_picture_or_of_json(tmp_path: Path) -> None:
    root = cells(tmp_path / "set", lambda row: {"bytes": None, "path": "pictures/one.png"})
    (root / "pictures").mkdir()
    (root / "pictures/one.png").write_text(POINTER)
    assert "git lfs pull" in refusal(root)
    (tmp_path / "config.json").write_text(POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        read_json(tmp_path / "config.json")
    (tmp_path / "notes.txt").write_text("version 2 of https://git-lfs.github.com")
    assert require_plain_file(tmp_path / "notes.txt") > 0


def raw(path: Path, images: list[np.ndarray]) -> None:
    film(path, images, form="h264", options={"g": "12", "bf": "2"})


def joined(path: Path, images: list[np.ndarray]) -> None:
    """Transport streams of which each begins at zero, one behind the other."""
    part, content = path.with_suffix(".part"), b""
    for some in (images[:20], images[20:]):
        film(part, some, form="mpegts")
        content += part.read_bytes()
    part.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("films", [raw, joined, lambda path, images: film(path, images, form="avi", codec="mpeg4", options={"bf": "2"})])
def test_a_film_without_times_comes_with_the_command_that_mends_it(tmp_path: Path, films: Callable[..., None]) -> None:
    """The command itself cannot be run here; what it does is done by hand: pictures in the order of decoding, one every 1 / fps s."""
    root = v3(tmp_path / "a set", films=films)
    message = refusal(root)
    assert rewriting(root / FILM, FPS) in message
    assert rewriting(root / FILM, FPS) in errors(root)
    words = shlex.split(message[message.index("ffmpeg ") :])
    assert words[:5] == ["ffmpeg", "-r", "10", "-i", str(root / FILM)]
    with av.open(str(root / FILM)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    film(root / FILM, images)
    assert len(open_dataset(root).episode(2).camera(CAMERA)[np.arange(15)]) == 15


def test_a_rate_that_is_no_whole_number_stays_exact() -> None:
    assert "-r 30000/1001 -i 'a b.mp4'" in rewriting(Path("a b.mp4"), 30000 / 1001)


@pytest.mark.parametrize("kind", [PICTURE, pa.binary()])
def test_an_empty_cell_is_seen_without_decoding(tmp_path: Path, kind: pa.DataType) -> None:
    def cell(row: int) -> object:
        content = None if row in (14, 15) else png(drawn(row))
        return content if kind == pa.binary() else None if row == 14 else {"bytes": content, "path": None}

    root = cells(tmp_path / "set", cell, kind)
    assert null_images(root / DATA, CAMERA) == (2, 1)
    for quick in (True, False):
        report = validate(root, quick=quick)
        assert [(each.code, each.episode) for each in report.findings] == [("picture-missing", 1)]
    assert "2 rows without a picture" in errors(root)
    assert null_images(cells(tmp_path / "sound", lambda row: {"bytes": png(drawn(row)), "path": None}) / DATA, CAMERA) == (0, None)


def test_names_in_place_of_bytes_are_no_empty_cells(tmp_path: Path) -> None:
    root = cells(tmp_path / "set", lambda row: {"bytes": None, "path": f"pictures/{row}.png"})
    assert null_images(root / DATA, CAMERA) == (0, None)


def test_a_picture_of_absurd_size_says_so(tmp_path: Path) -> None:
    content = bytearray(png(drawn(20)))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    root = cells(tmp_path / "set", lambda row: {"bytes": bytes(content) if row == 20 else png(drawn(row)), "path": None})
    assert "larger than the 50 million pixels" in errors(root)


def test_a_shape_in_words_is_an_error(tmp_path: Path) -> None:
    edit_info(v3(tmp_path), lambda info: info["features"][CAMERA].update(shape="48x96"))
    assert "should be three whole numbers, it is '48x96'" in errors(tmp_path)


def test_statistics_that_are_no_file_are_not_called_missing(tmp_path: Path) -> None:
    root = v3(tmp_path / "set")
    (root / "meta/stats.json").unlink()
    os.mkfifo(root / "meta/stats.json")
    assert [each.message for each in validate(root).findings if "no plain file (a pipe" in each.message]
    (root / "meta/stats.json").unlink()
    assert [each.message for each in validate(root).findings if each.message.startswith("meta/stats.json is missing")]


def test_episode_numbers_in_words_are_not_called_no_episodes(tmp_path: Path) -> None:
    edit_entries(v3(tmp_path), lambda rows: [row.update(episode_index=str(row["episode_index"])) for row in rows])
    with pytest.raises(DataError, match=r"no episode can be read: .*'episode_index' should be a whole number .*, it is '0'"):
        open_dataset(tmp_path)


def test_a_start_that_another_episode_has_says_so(tmp_path: Path) -> None:
    key = f"videos/{CAMERA}/from_timestamp"
    edit_entries(v3(tmp_path), lambda rows: rows[1].update({key: 0.0, key.replace("from", "to"): 0.9}))
    assert "wanted at 0.0000 s, which is another episode's" in refusal(tmp_path)
    assert "says 1.2000 s" in refusal(tmp_path)


def test_milliseconds_for_seconds_are_beyond_the_film(tmp_path: Path) -> None:
    keys = [f"videos/{CAMERA}/{name}_timestamp" for name in ("from", "to")]
    edit_entries(v3(tmp_path), lambda rows: [row.update({key: row[key] * 1000 for key in keys}) for row in rows])
    assert "wanted at 1200.0000 s, the nearest picture is at 3.5000 s" in refusal(tmp_path)


def test_a_missing_film_is_missing(tmp_path: Path) -> None:
    shutil.rmtree((v3(tmp_path) / FILM).parent)
    with pytest.raises(UnreadableError, match="is missing"):
        open_dataset(tmp_path)[0].camera(CAMERA)[np.array([0])]
    assert pq.read_table(tmp_path / DATA).num_rows == 36


def test_distances_are_looked_at_by_name_alone_when_training_and_labelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in `render` and `plot`: refused with the option that asks for them, and then their whole range as grey."""
    root, model = sixteen_bits(tmp_path / "set"), str(tmp_path / "model")
    words = [
        "train",
        str(root),
        "--output-dir",
        model,
        "--steps",
        "1",
        "--preset",
        "small",
        "--annotation-mode",
        "single_stage",
        "--no-cache",
    ]
    assert main(words) == 2
    assert f"named with --image-key: {CAMERA}" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--image-key", CAMERA]) == 0
    assert main(["label", str(root), "--model", model, "--no-cache"]) == 0
    assert pq.read_table(root / "sarm_progress.parquet").num_rows == 36


@pytest.mark.parametrize("break_it", [lambda path: lost_bytes(path, 70, 75), lambda path: lost_bytes(path, 70, 71)])
def test_looking_at_all_names_film_episode_and_frame(tmp_path: Path, break_it: Callable[[Path], None]) -> None:
    """Picture 70 of a film of episodes of 60 and 40 frames: frame 10 of the second."""
    root = v3(tmp_path, (60, 40, 5), films=lambda path, images: film(path, images, options={"g": "2", "bf": "0"}))
    break_it(root / FILM)
    assert validate(root).healthy
    found = [each for each in validate(root, deep=True).findings if each.severity == "error"]
    assert [(each.code, each.episode) for each in found] == [("video-damaged", 1)]
    assert str(FILM) in found[0].message
    assert "frame 10 of the episode" in found[0].message
