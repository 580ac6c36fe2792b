"""Importing videos with a CSV: what comes back is what went in, and each fault is one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import get_args, get_type_hints

import av
import numpy as np
import pytest

import milepost
from milepost.cli.entry import main
from milepost.cli.import_ import Args
from milepost.core.errors import DataError
from milepost.datasets.video import VideoFrames, encode_video
from milepost.importing.opening import FORMATS, open_source
from milepost.importing.source import Choices, Source
from milepost.importing.writing import import_source
from test_cli import assert_refused
from test_cli import milepost as command

CAMERA = "observation.images.camera"
FAST = ("--vcodec", "libx264")


def moving(length: int, seed: int = 0, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Images (T, H, W, 3) that are all different: a pattern of large squares that moves."""
    ground = np.random.default_rng(seed).integers(0, 255, (8, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return np.stack([np.resize(np.roll(ground, 2 * t, axis=1), (*size, 3)) for t in range(length)])


def write_video(path: Path, images: np.ndarray, fps: int = 10) -> Path:
    encode_video(path, iter(images), fps, codec="libx264")
    return path


def write_uneven(path: Path, images: np.ndarray, stamps_ms: list[int]) -> Path:
    """A video whose images are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"g": "2", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        for image, stamp in zip(images, stamps_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def assert_same_images(got: np.ndarray, sent: np.ndarray, tolerance: float = 15) -> None:
    """Each image that comes back is nearest to the one of its own frame: encoding loses something, and the order must not."""
    apart = np.abs(got[:, None].astype(int) - sent[None].astype(int)).mean(axis=(2, 3, 4))
    assert len(got) == len(sent)
    assert (apart.argmin(axis=1) == np.arange(len(sent))).all()
    assert np.diag(apart).max() < tolerance


def assert_sound(root: Path) -> None:
    report = milepost.validate(root, deep=True)
    assert [each.message for each in report.findings if each.severity != "note"] == []


def every(dataset: object, number: int, camera: str) -> np.ndarray:
    episode = dataset[number]
    return episode.cameras[camera][np.arange(episode.length)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, their states, and the CSV."""
    root = tmp_path / "videos"
    root.mkdir()
    for number, length in enumerate((12, 9)):
        write_video(root / f"{number}.mp4", moving(length, number))
    np.save(root / "0.npy", np.arange(36, dtype=np.float64).reshape(12, 3))
    np.savez(root / "1.npz", state=np.random.default_rng(0).normal(size=(9, 3)))
    (root / "list.csv").write_text('file,task,success,state\n0.mp4,fold the towel,true,0.npy\n1.mp4,"open it, slowly",no,1.npz\n')
    return root


def test_the_formats_are_those_of_the_command() -> None:
    assert get_args(get_type_hints(Args)["format"]) == ("auto", *FORMATS)


def test_a_folder_of_videos_is_imported(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = command("import", folder, "--output-dir", tmp_path / "new" / "set", *FAST)
    assert run.returncode == 0, run.stderr
    assert "videos and a CSV, 2 episodes at 10 fps" in run.stdout
    assert_sound(tmp_path / "new" / "set")
    dataset = milepost.open_dataset(tmp_path / "new" / "set")
    assert (dataset.version, dataset.fps, dataset.tasks) == ("v3.0", 10, ("fold the towel", "open it, slowly"))
    for number, length in enumerate((12, 9)):
        assert_same_images(every(dataset, number, CAMERA), moving(length, number))
    np.testing.assert_array_equal(dataset[0].state, np.arange(36, dtype=np.float32).reshape(12, 3))
    assert [episode.success for episode in dataset] == [True, False]
    assert dataset[0].columns["next.success"].tolist() == [False] * 11 + [True]
    assert not dataset[1].columns["next.success"].any()
    assert dataset[0].facts["source"] == "0.mp4"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_several_cameras_named_channels_and_unknown_outcomes(tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / f"top{number}.mp4", moving(6, number))
        write_video(tmp_path / f"wrist{number}.mp4", moving(6, number + 5))
    (tmp_path / "s.csv").write_text("x,y,action.dx\n" + "".join(f"{t},{2 * t},{-t}\n" for t in range(6)))
    table = tmp_path / "all.csv"
    table.write_text("file.top;file.wrist;success;state\ntop0.mp4;wrist0.mp4;;s.csv\ntop1.mp4;wrist1.mp4;true;s.csv\n")
    assert command("import", table, "--output-dir", tmp_path / "set", "--task", "stack", *FAST).returncode == 0
    assert_sound(tmp_path / "set")
    dataset = milepost.open_dataset(tmp_path / "set")
    assert dataset.cameras == ("observation.images.top", "observation.images.wrist")
    assert_same_images(every(dataset, 1, "observation.images.wrist"), moving(6, 6))
    assert [episode.success for episode in dataset] == [None, True]
    assert "next.success" not in dataset.meta.features, "an unknown outcome is no failure"
    assert dataset.meta.features["observation.state"]["names"] == ["x", "y"]
    assert dataset.meta.features["action"]["names"] == ["dx"]
    np.testing.assert_array_equal(dataset[0].columns["action"].reshape(-1), -np.arange(6, dtype=np.float32))


def test_another_rate_is_sampled_only_if_asked(folder: Path, tmp_path: Path) -> None:
    """20 images a second at 10 are every second one; uneven ones are those nearest in time, and the states go with them."""
    images = moving(20, 7)
    write_video(folder / "1.mp4", images, fps=20)
    np.savez(folder / "1.npz", state=np.arange(60, dtype=np.float32).reshape(20, 3))
    assert_refused(command("import", folder, "--output-dir", tmp_path / "set"), "10 (0.mp4) and 20 (1.mp4)", "--fps")
    run = command("import", folder, "--output-dir", tmp_path / "set", "--fps", 10, *FAST)
    assert run.returncode == 0, run.stderr
    assert "1 video of another or uneven frame rate" in run.stdout
    dataset = milepost.open_dataset(tmp_path / "set")
    assert_same_images(every(dataset, 1, CAMERA), images[::2])
    np.testing.assert_array_equal(dataset[1].state[:, 0], np.arange(20)[::2] * 3)

    stamps = [0, 100, 190, 330, 400, 520]
    write_uneven(folder / "1.mp4", images[:6], stamps)
    (folder / "list.csv").write_text("file,task\n1.mp4,fold\n")
    assert_refused(command("import", folder, "--output-dir", tmp_path / "uneven"), "70 to 140 ms apart", "--fps")
    assert command("import", folder, "--output-dir", tmp_path / "uneven", "--fps", 20, *FAST).returncode == 0
    nearest = [int(np.abs(np.array(stamps) - 50 * t).argmin()) for t in range(12)]
    got = every(milepost.open_dataset(tmp_path / "uneven"), 0, CAMERA)
    assert [int(np.abs(images[:6].astype(int) - each).mean(axis=(1, 2, 3)).argmin()) for each in got] == nearest


def test_an_odd_size_loses_a_row_and_says_so(tmp_path: Path) -> None:
    import_source(_odd(tmp_path / "odd"), tmp_path / "set", codec="libx264")
    assert milepost.open_dataset(tmp_path / "set").image_size(CAMERA) == (64, 96)


def _odd(folder: Path) -> Source:
    folder.mkdir()
    with av.open(str(folder / "odd.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10)
        stream.height, stream.width, stream.pix_fmt = 65, 97, "rgb24"
        for image in moving(4, size=(65, 97)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (folder / "list.csv").write_text("file,task\nodd.mp4,fold\n")
    source = open_source(folder)
    assert any("even sides" in note for note in source.notes)
    return source


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,task\nnone.mp4,fold\n", ("line 2", "none.mp4", "not there")),
        ("file,task\nbroken.mp4,fold\n", ("line 2", "broken.mp4", "not an mp4")),
        ("file,task\n0.mp4,\n", ("line 2", "--task")),
        ("file,task,success\n0.mp4,fold,maybe\n", ("line 2", "'maybe'", "true, false")),
        ("file,task,state\n0.mp4,fold,none.npy\n", ("line 2", "none.npy", "not there")),
        ("file,task,state\n0.mp4,fold,short.npy\n", ("short.npy", "5 rows", "12 images")),
        ("file,task,state\n0.mp4,fold,list.csv\n", ("list.csv", "cannot be read")),
        ("file,task\n0.mp4,fold\nlarge.mp4,fold\n", ("line 3", "large.mp4", "one size")),
        ("file.a,file.b,task\n0.mp4,1.mp4,fold\n", ("line 2", "equally many frames", "12 of a", "9 of b")),
        ("file,task\n0.mp4,fold,it\n", ("line 2", "more cells than columns")),
        ("video,task\n0.mp4,fold\n", ("no column 'file'",)),
        ("file,task,colour\n0.mp4,fold,red\n", ("'colour'",)),
        ("file,task\n", ("no row",)),
    ],
)
def test_a_row_that_cannot_be_imported_is_refused(folder: Path, tmp_path: Path, table: str, words: tuple[str, ...]) -> None:
    (folder / "broken.mp4").write_bytes(b"nothing good")
    write_video(folder / "large.mp4", moving(4, size=(128, 96)))
    np.save(folder / "short.npy", np.zeros((5, 2)))
    (folder / "list.csv").write_text(table)
    assert_refused(command("import", folder, "--output-dir", tmp_path / "set"), *words)
    assert not (tmp_path / "set").exists()


def test_where_a_dataset_may_not_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert_refused(command("import", folder, "--output-dir", tmp_path / "there"), "exists already")
    assert_refused(command("import", folder, "--output-dir", folder / "set"), "only read")
    assert_refused(command("import", tmp_path / "nothing", "--output-dir", tmp_path / "set"), "there is no")
    assert_refused(command("import", tmp_path / "there", "--output-dir", tmp_path / "set"), "no layout that is known")
    (folder / "more.csv").write_text("file,task\n")
    assert_refused(command("import", folder, "--output-dir", tmp_path / "set"), "2 CSV files")


def test_a_fault_in_the_middle_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second video turns out to be damaged only when it is read."""
    whole = VideoFrames.chunks

    def damaged(self: VideoFrames, size: int = 64):
        if self.path.name == "1.mp4":
            raise DataError("video 1.mp4 is damaged")
        return whole(self, size)

    monkeypatch.setattr(VideoFrames, "chunks", damaged)
    with pytest.raises(DataError, match=r"list.csv, line 3: video 1.mp4 is damaged"):
        import_source(open_source(folder, "auto", Choices()), tmp_path / "set", codec="libx264")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_the_video_of_an_episode_that_is_left_out_is_not_opened(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "0.mp4").write_bytes(b"nothing good")
    where = ["import", str(folder), "--output-dir", str(tmp_path / "set"), *FAST]
    assert main(where) == 2
    assert "leave it out with --without 0" in capsys.readouterr().err
    assert main([*where, "--without", "0"]) == 0
    (only,) = milepost.open_dataset(tmp_path / "set")
    assert (only.task, only.length, only.success) == ("open it, slowly", 9, False)
