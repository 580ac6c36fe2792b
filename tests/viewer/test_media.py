"""Films as browsers play them: codecs named as the standards name them, films exact to the frame, made once, never half."""

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import milepost.viewer.media as media
from builders import TOP, WRIST, build_dataset, edit_info, moving, set_column
from milepost.core.errors import DataError
from milepost.core.outputs import temporary_name
from milepost.core.types import Frames
from milepost.datasets.hub import Files
from milepost.datasets.metadata import read_metadata
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.datasets.video import encode_video, probe
from milepost.viewer.export import export_html
from milepost.viewer.marks import Marks, marks_file
from milepost.viewer.media import StoppedError, VideoCache, cameras, codec_string, own_video, source_file, source_type
from milepost.viewer.review import Review
from reviewed import annotated_dataset

EPISODES = "meta/episodes/chunk-000/file-001.parquet"


@pytest.mark.parametrize(
    ("tag", "settings", "named"),
    [
        ("avc1", "01640028ffe1", "avc1.640028"),  # High 4.0
        ("avc1", "0142e01effe1", "avc1.42e01e"),  # the constrained baseline of RFC 6381's time
        ("av01", "81040c00", "av01.0.04M.08"),  # AV1-ISOBMFF's example but for its depth
        ("av01", "81044c00", "av01.0.04M.10"),  # as it is there
        ("av01", "812de000", "av01.1.13H.12"),
        ("hvc1", "010160000000b000000000005d", "hvc1.1.6.L93.B0"),  # ISO 14496-15's example
        ("hev1", "010220000000b0000000000099", "hev1.2.4.L153.B0"),
        ("hvc1", "0161600000009e0123000000" + "5d", "hvc1.A1.6.H93.9E.1.23"),
        ("mp4v", "00", None),
        ("avc1", "", None),
        ("av01", "00040c", None),
    ],
)
def test_codecs_are_named_as_the_standards_name_them(tag: str, settings: str, named: str | None) -> None:
    assert codec_string(tag, bytes.fromhex(settings)) == named


@pytest.mark.parametrize(
    ("codec", "pattern"),
    [
        ("libx264", r"avc1\.64[0-9a-f]{4}"),
        ("libx265", r"h(ev|vc)1\.1\.6\.L\d+(\.[0-9A-F]{1,2})+"),
        ("libsvtav1", r"av01\.0\.\d\dM\.08"),
    ],
)
def test_real_files_are_named(tmp_path: Path, codec: str, pattern: str) -> None:
    build_dataset(tmp_path / "set", cameras={TOP: codec})
    dataset = open_dataset(tmp_path / "set")
    told = source_type(dataset, 1, TOP)
    assert told is not None
    assert re.fullmatch(f'video/mp4; codecs="{pattern}"', told)
    found = cameras(dataset, 1)[TOP]
    assert found["source"] == {"url": f"/media/source/1/{TOP}", "type": told, "start_s": 0.45}  # behind the 9 frames of episode 0
    assert (found["width"], found["height"]) == (80, 64)


def test_the_level_that_is_told_is_the_streams(tmp_path: Path) -> None:
    """FFmpeg reads profile and level out of the stream itself, we out of the mp4's box."""
    for number, (codec, shape) in enumerate([("libx264", (64, 80)), ("libx264", (480, 640)), ("libsvtav1", (240, 320))]):
        path = tmp_path / f"{number}.mp4"
        encode_video(path, moving(3, height=shape[0], width=shape[1]), 30, codec=codec)
        found = probe(path)
        named = codec_string(found.tag, found.settings)
        with av.open(str(path)) as container:
            next(container.decode(video=0))
            told = container.streams.video[0].codec_context
            assert told.profile in ("High", "Main")
            if codec == "libx264":
                assert named == f"avc1.6400{found.settings[3]:02x}"


@pytest.mark.parametrize(("version", "codec", "own"), [("v2.1", "libx264", True), ("v2.1", "libsvtav1", False), ("v3.0", "libx264", False)])
def test_an_exported_page_takes_films_that_every_browser_plays_as_they_are(tmp_path: Path, version: str, codec: str, own: bool) -> None:
    """An mp4 in H.264 of one episode alone is in the page byte by byte; others (AV1, one film of several episodes) are encoded again."""
    root = build_dataset(tmp_path / "set", version=version, cameras={TOP: codec}, lengths=(9, 45, 6)).root
    dataset, films = open_dataset(root), VideoCache(tmp_path / "films")
    found = own_video(dataset, 1, TOP)
    review = Review(dataset, {}, marks=Marks(tmp_path / "marks.json", dataset))
    export_html(review, tmp_path / "page.html", episodes=[1], films=films)
    review.close()
    films.close()
    text = (tmp_path / "page.html").read_text()
    embedded = base64.b64decode(text.split(f'id="embedded:1/{TOP}">')[1].split("<")[0])
    assert (found is not None) == own
    assert (embedded == (root / dataset.meta.episodes[1].videos[TOP].path).read_bytes()) == own
    assert bool(list((tmp_path / "films").rglob("*.mp4"))) != own


def h264(folder: Path, dataset: LeRobotDataset, number: int, camera: str) -> np.ndarray:
    films = VideoCache(folder)
    path = films.ask(dataset, dataset.fingerprint, number, camera).result(60)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.codec.canonical_name == "h264"
    assert [frame.time for frame in frames] == [pytest.approx(float(Fraction(i, 20))) for i in range(len(frames))]
    assert [i for i, frame in enumerate(frames) if frame.key_frame] == list(range(0, len(frames), 20))  # one a second
    films.close()
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "png"])
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_a_film_is_the_episode_frame_by_frame(tmp_path: Path, codec: str, version: str) -> None:
    built = build_dataset(tmp_path / "set", version=version, cameras={WRIST: "libx264", TOP: codec}, lengths=(9, 45, 6))
    seen = h264(tmp_path / "films", open_dataset(tmp_path / "set"), 1, TOP)
    expected = built.images[TOP, 1]
    assert seen.shape == expected.shape
    bright, wanted = (pictures @ np.array([0.299, 0.587, 0.114]) for pictures in (seen, expected))  # colours have half the pixels
    errors = np.abs(bright - wanted).mean(axis=(1, 2))
    assert errors.max() < 4
    assert (np.abs(bright[1:] - wanted[:-1]).mean(axis=(1, 2)) > errors[1:] + 10).all()  # a neighbour's picture would be far off


def test_a_film_is_made_once_for_all_that_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_dataset(tmp_path / "set", lengths=(40, 40))
    dataset, made = open_dataset(tmp_path / "set"), []
    real = media.read_planes
    monkeypatch.setattr(media, "read_planes", lambda frames: made.append(frames) or real(frames))
    films = VideoCache(tmp_path / "films", workers=3)
    futures = []
    threads = [threading.Thread(target=lambda: futures.append(films.ask(dataset, "print", 0, TOP))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({future.result(60) for future in futures}) == 1
    films.ask(dataset, "print", 0, TOP).result(60)
    VideoCache(tmp_path / "films").ask(dataset, "print", 0, TOP).result(60)
    assert len(made) == 1
    films.ask(dataset, "another print", 0, TOP).result(60)
    films.ask(dataset, "print", 1, TOP).result(60)
    assert len(made) == 3
    assert not films._making


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_film_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "set", lengths=(40, 40), per_file=1).root
    torn = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    (root / f"videos/{TOP}/chunk-000/file-001.mp4").unlink()
    dataset, films = open_dataset(root), VideoCache(tmp_path / "films")
    for number in (0, 1):
        with pytest.raises(DataError, match="video"):
            films.ask(dataset, "print", number, TOP).result(60)
        assert source_type(dataset, number, TOP) is None
    assert files(tmp_path / "films") == []
    assert not films._making


class Endless:
    """Pictures that do not end."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, frames: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def chunks(self, size: int = 64) -> Iterator[np.ndarray]:
        while True:
            yield np.zeros((4, 64, 64, 3), np.uint8)
            self.begun.set()


def test_a_film_that_is_given_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: Frames = Endless()
    monkeypatch.setattr(media, "camera_frames", lambda dataset, number, camera: (frames, 20.0))
    dataset = open_dataset(build_dataset(tmp_path / "set").root)
    films = VideoCache(tmp_path / "films", workers=1)
    running, queued, left = (films.ask(dataset, "print", n, TOP) for n in range(3))
    assert films.ask(dataset, "print", 2, TOP) is left
    assert frames.begun.wait(30)
    until = time.monotonic() + 30
    while not files(tmp_path / "films") and time.monotonic() < until:  # the encoder looks ahead before it writes
        time.sleep(0.01)
    assert [path.suffix for path in files(tmp_path / "films")] == [".milepost"]
    films.leave("print", 2, TOP)
    assert not left.cancelled()  # somebody still waits
    films.leave("print", 2, TOP)
    assert left.cancelled()
    films.leave("print", 0, TOP)
    assert not running.done()
    films.close()
    with pytest.raises(StoppedError):
        running.result(10)
    assert queued.cancelled()
    assert files(tmp_path / "films") == []
    assert not films._making


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "films" / "print"
    folder.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive, whole = temporary_name(folder / "b.mp4"), folder / "c.mp4"
    dead = folder / alive.name.replace(".b.mp4.", ".a.mp4.").replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    for path in (dead, alive, whole):
        path.write_bytes(b"x")
    VideoCache(tmp_path / "films")
    assert sorted(files(folder)) == sorted([alive, whole])


def test_nothing_outside_the_dataset_is_opened(tmp_path: Path) -> None:
    """A camera's name is part of a path in LeRobot's format, and a dataset is somebody else's words."""
    secret = tmp_path / "chunk-000" / "file-000.mp4"
    encode_video(secret, moving(40), 20, codec="libx264")
    root = build_dataset(tmp_path / "set", lengths=(9, 14)).root
    evil = "../.."
    features = dict(open_dataset(root).meta.features)
    features[evil] = features.pop(TOP)
    edit_info(root, features=features, video_path="videos/x/{video_key}/../chunk-000/file-000.mp4")
    for path, stop_s in ((root / EPISODES, 0.7), (root / EPISODES.replace("001", "000"), 0.45)):
        for name, value in (("chunk_index", 0), ("file_index", 0), ("from_timestamp", 0.0), ("to_timestamp", stop_s)):
            set_column(path, f"videos/{evil}/{name}", [value])
    dataset = open_dataset(root)
    assert evil not in dataset.meta.episodes[0].videos
    assert source_type(dataset, 0, evil) is None
    assert source_file(dataset, 0, evil) is None
    with pytest.raises(DataError, match="does not stay inside its folder"):
        VideoCache(tmp_path / "films").ask(dataset, "print", 0, evil).result(60)


def test_a_link_out_of_the_dataset_is_no_source(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "set", lengths=(9, 14)).root
    mp4 = root / f"videos/{TOP}/chunk-000/file-000.mp4"
    mp4.rename(tmp_path / "elsewhere.mp4")
    mp4.symlink_to(tmp_path / "elsewhere.mp4")
    dataset = open_dataset(root)
    assert source_file(dataset, 0, TOP) is None
    with pytest.raises(DataError, match="is a link to a file outside the dataset"):
        VideoCache(tmp_path / "films").ask(dataset, "print", 0, TOP).result(60)
    mp4.unlink()
    mp4.write_text("root:x:0:0\n")
    assert source_file(dataset, 0, TOP) is None


class NotYet(Files):
    """A Hub dataset of which meta/ alone was downloaded."""

    def path(self, relative: str) -> Path:
        raise AssertionError(f"{relative} would be downloaded")


def test_of_a_hub_dataset_nothing_is_downloaded_before_it_is_looked_at(tmp_path: Path) -> None:
    root = annotated_dataset(tmp_path / "towels", cameras={TOP: "libx264", WRIST: "libx264"})
    features = dict(open_dataset(root).meta.features)
    features[TOP] = {**features[TOP], "info": {"video.codec": "av1"}}
    edit_info(root, features=features)
    shutil.rmtree(root / "videos")
    meta = read_metadata(root)
    dataset = LeRobotDataset(NotYet(root, "me/towels", "me/towels", "abc"), meta, episodes=list(meta.episodes), cameras=meta.cameras)
    review = Review(dataset, {}, marks=Marks(tmp_path / "marks.json", dataset))
    assert review.events(20)["success"] == [None] * 4  # only the rows would tell
    assert review.episodes()["annotated"]["sparse"] == [1, 1, 1, 1]
    assert not review.about()["editable"]
    found = cameras(dataset, 1)
    assert found[TOP]["source"]["type"] == 'video/mp4; codecs="av01.0.08M.08"'  # what info.json says, not what is there
    assert found[WRIST]["source"] is None
    assert marks_file(dataset) == Path("me--towels.review.json")
