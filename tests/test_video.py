"""Frames by time stamp against a plain PyAV loop: every pixel, any order, any codec; and every way an mp4 can be wrong."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import builders
from milepost.core.errors import DataError
from milepost.core.types import Frames
from milepost.datasets import video
from milepost.datasets.video import VideoFrames, concat_videos, encode_video, probe

FPS = 30
COUNT = 90
ENCODINGS = {
    "av1-g2": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    "av1-g30": ("libsvtav1", {"g": "30", "preset": "12"}),
    "h264-g2": ("libx264", {"g": "2"}),
    "h264-g30-b-frames": ("libx264", {"g": "30", "bf": "3"}),
    "h264-one-key-frame": ("libx264", {"g": "600"}),
    "h264-open-gop": ("libx264", {"g": "20", "bf": "3", "x264-params": "open-gop=1:b-pyramid=2"}),
    "hevc-open-gop": ("libx265", {"x265-params": "log-level=error:keyint=12:open-gop=1:bframes=4"}),
}


@pytest.fixture(scope="module", params=ENCODINGS)
def film(request, tmp_path_factory) -> tuple[Path, np.ndarray]:
    """An mp4 and what a plain loop decodes from it."""
    path = tmp_path_factory.mktemp("films") / f"{request.param}.mp4"
    codec, options = ENCODINGS[request.param]
    builders.encode_with(path, [*builders.moving(COUNT)], FPS, codec, **options)
    return path, builders.plain_decode(path)


@pytest.fixture(scope="module")
def h264(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("films") / "h264.mp4"
    builders.encode_with(path, [*builders.moving(COUNT)], FPS, "libx264", g="30", bf="3")
    return path


def frames_of(path: Path, start: int = 0, count: int = COUNT) -> VideoFrames:
    return VideoFrames(path, (start + np.arange(count)) / FPS, FPS)


def test_chunks_equal_a_plain_loop(film):
    path, images = film
    frames = frames_of(path)
    assert isinstance(frames, Frames)
    chunks = list(frames.chunks(32))
    assert [len(chunk) for chunk in chunks] == [32, 32, 26]
    np.testing.assert_array_equal(np.concatenate(chunks), images)
    assert not np.array_equal(images[40], images[41])  # else the test could not tell neighbours apart


@pytest.mark.parametrize("start", [1, 2, 11, 19, 20, 30, 89])
def test_a_span_may_begin_anywhere(film, start):
    path, images = film
    np.testing.assert_array_equal(np.concatenate([*frames_of(path, start, COUNT - start).chunks()]), images[start:])


def test_each_frame_alone(film):
    path, images = film
    frames = frames_of(path)
    for i in range(0, COUNT, 4):
        np.testing.assert_array_equal(frames[np.array([i])][0], images[i])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.integers(0, 39), max_size=12), start=st.integers(0, COUNT - 40))
def test_any_list_of_frames_equals_the_plain_loop(film, wanted, start):
    path, images = film
    got = frames_of(path, start, 40)[np.array(wanted, dtype=np.int64)]
    np.testing.assert_array_equal(got, images[start:][np.array(wanted, dtype=np.int64)])


def test_far_gaps_are_skipped_and_near_ones_are_not(h264, monkeypatch):
    decoded: list[float] = []
    decode = video._decode

    def counting(*arguments, **options):
        for frame in decode(*arguments, **options):
            decoded.append(frame.time)
            yield frame

    monkeypatch.setattr(video, "_decode", counting)
    frames_of(h264)[np.array([0, 62])]
    assert len(decoded) <= 4  # frame 0, then from the key frame at 60
    decoded.clear()
    frames_of(h264)[np.array([3, 7, 3, 7, 5])]
    assert len(decoded) == 8  # 0 to 7, once
    decoded.clear()
    list(frames_of(h264).chunks(10))
    assert len(decoded) == COUNT == len(set(decoded))


def test_frame_numbers_outside_are_an_index_error(h264):
    frames = frames_of(h264, 10, 20)
    for bad in ([-1], [20], [0, 99]):
        with pytest.raises(IndexError, match="20 frames"):
            frames[np.array(bad)]
    assert frames[np.array([], dtype=np.int64)].shape == (0, 64, 80, 3)


def test_memory_does_not_grow_with_the_episode(tmp_path):
    path = tmp_path / "long.mp4"
    encode_video(path, builders.moving(400, height=96, width=128), FPS, codec="libx264")

    def peak(count: int) -> int:
        tracemalloc.start()
        for chunk in frames_of(path, 0, count).chunks(16):
            assert len(chunk) == 16
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(16)
    assert peak(400) < 1.2 * peak(48)


def test_the_nearest_picture_within_half_a_frame(h264):
    images = builders.plain_decode(h264)
    for shift in (-0.4, -0.05, 0.05, 0.4):
        inner = VideoFrames(h264, (np.arange(1, 80) + shift) / FPS, FPS)
        np.testing.assert_array_equal(inner[np.array([0, 5, 70])], images[[1, 6, 71]])


def test_stamps_between_pictures_are_refused(tmp_path):
    path = tmp_path / "slow.mp4"
    builders.encode_with(path, [*builders.moving(20)], 10, "libx264")
    with pytest.raises(DataError, match=r"slow\.mp4: frame 1 .* wanted at 0\.0500 s.*nearest picture is at 0\.0000 s"):
        list(VideoFrames(path, np.arange(20) / 20, 40.0).chunks())


def test_stamps_before_the_file_are_refused(h264):
    with pytest.raises(DataError, match=r"frame 0 of the episode is wanted at -0\.0333 s"):
        frames_of(h264, -1)[np.array([0])]


@pytest.mark.parametrize("wanted", [np.arange(80), np.array([79]), np.array([2, 75])])
def test_a_video_shorter_than_its_rows_says_how_many_frames_there_are(h264, wanted):
    with pytest.raises(DataError, match=r"shorter than its rows: the episode has 80 rows, the video holds 70 of its frames"):
        frames_of(h264, 20, 80)[wanted]


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.mp4 is missing"):
        frames_of(tmp_path / "nothing.mp4")[np.array([0])]


@pytest.mark.parametrize("content", [b"", b"not a video " * 50])
def test_not_an_mp4(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4 cannot be opened"):
        list(frames_of(tmp_path / "bad.mp4").chunks())


def test_truncated_file(h264, tmp_path):
    content = h264.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.mp4 cannot be opened: truncated"):
        list(frames_of(tmp_path / "cut.mp4").chunks())


def test_truncated_file_with_its_index_in_front(h264, tmp_path):
    whole = tmp_path / "whole.mp4"
    with av.open(str(h264)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    content = whole.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * 0.6)])
    with pytest.raises(DataError, match=r"cut\.mp4 is (damaged after \d|shorter than its rows)"):
        list(frames_of(tmp_path / "cut.mp4").chunks())


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
def test_damaged_in_the_middle(tmp_path, codec, rng):
    path = tmp_path / "bad.mp4"
    builders.encode_with(path, [*builders.moving(COUNT)], FPS, codec, g="10")
    content = bytearray(path.read_bytes())
    middle = content.find(b"mdat") + (content.find(b"moov") - content.find(b"mdat")) // 2
    content[middle : middle + 2000] = rng.bytes(2000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.mp4 is damaged"):
        list(frames_of(path).chunks())


def test_no_video_stream(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="no video stream"):
        probe(path)


def test_files_are_closed_when_reading_stops_early(h264):
    def open_files() -> int:
        return sum(str(h264) == str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    chunks = frames_of(h264).chunks(4)
    next(chunks)
    assert open_files() == 1
    chunks.close()
    assert open_files() == 0
    frames_of(h264)[np.array([1, 2])]
    assert open_files() == 0


@pytest.mark.parametrize(("codec", "name"), [("libsvtav1", "av1"), ("libx264", "h264"), ("libx265", "hevc")])
def test_encode_probe_and_join(tmp_path, codec, name):
    counts = (21, 34, 1, 12)
    parts = [tmp_path / f"{i}.mp4" for i in range(len(counts))]
    for i, (part, count) in enumerate(zip(parts, counts, strict=True)):
        assert encode_video(part, builders.moving(count, seed=i), 20, codec=codec) == (count, pytest.approx(count / 20))
    info = probe(parts[0])
    assert (info.codec, info.pix_fmt, info.width, info.height, info.fps, info.frames) == (name, "yuv420p", 80, 64, 20.0, 21)
    assert info.duration == pytest.approx(1.05)
    assert keys(parts[0]) == [*range(0, 21, 2)]

    spans = concat_videos(parts, tmp_path / "joined.mp4")
    np.testing.assert_allclose(spans, [(0, 1.05), (1.05, 2.75), (2.75, 2.8), (2.8, 3.4)])
    assert probe(tmp_path / "joined.mp4").frames == sum(counts)
    np.testing.assert_array_equal(
        builders.plain_decode(tmp_path / "joined.mp4"), np.concatenate([builders.plain_decode(part) for part in parts])
    )
    for part, count, (start, _) in zip(parts, counts, spans, strict=True):
        frames = VideoFrames(tmp_path / "joined.mp4", start + np.arange(count) / 20, 20.0)
        np.testing.assert_array_equal(np.concatenate([*frames.chunks(5)]), builders.plain_decode(part))
        np.testing.assert_array_equal(frames[np.array([count - 1])], builders.plain_decode(part)[-1:])


def keys(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]


@pytest.mark.parametrize("fps", [29.97, 12.5, 50])
def test_frame_rates_survive(tmp_path, fps):
    encode_video(tmp_path / "a.mp4", builders.moving(30), fps, codec="libx264")
    assert probe(tmp_path / "a.mp4").fps == pytest.approx(fps)
    frames = VideoFrames(tmp_path / "a.mp4", np.arange(30) / fps, float(fps))
    np.testing.assert_array_equal(np.concatenate([*frames.chunks()]), builders.plain_decode(tmp_path / "a.mp4"))


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264", "libx265"])
def test_same_frames_same_bytes(tmp_path, codec):
    for name in ("a", "b"):
        encode_video(tmp_path / f"{name}.mp4", builders.moving(12), 20, codec=codec)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failed_write_leaves_nothing_and_an_old_file_alone(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    def breaking():
        yield from builders.moving(3)
        raise RuntimeError("the simulator crashed")

    with pytest.raises(RuntimeError, match="crashed"):
        encode_video(path, breaking(), 20, codec="libx264")
    with pytest.raises(DataError, match=r"frame 2 is uint8 \(66, 80, 3\)"):
        encode_video(path, [*builders.moving(2), np.zeros((66, 80, 3), np.uint8)], 20, codec="libx264")
    with pytest.raises(DataError, match="no frames"):
        encode_video(path, [], 20)
    with pytest.raises(DataError, match="even H and W"):
        encode_video(path, [np.zeros((63, 80, 3), np.uint8)], 20)
    with pytest.raises(ValueError, match="libsvtav1, libx264, libx265"):
        encode_video(path, builders.moving(1), 20, codec="vp9")
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    assert path.read_bytes() == b"old"


def test_parts_that_differ_are_not_joined(tmp_path):
    encode_video(tmp_path / "a.mp4", builders.moving(4), 20, codec="libx264")
    encode_video(tmp_path / "b.mp4", builders.moving(4), 20, codec="libsvtav1")
    encode_video(tmp_path / "c.mp4", builders.moving(4, height=96), 20, codec="libx264")
    encode_video(tmp_path / "d.mp4", builders.moving(4), 25, codec="libx264")
    for other in "bcd":
        with pytest.raises(DataError, match="cannot be joined"):
            concat_videos([tmp_path / "a.mp4", tmp_path / f"{other}.mp4"], tmp_path / "out.mp4")
    with pytest.raises(DataError, match="no parts"):
        concat_videos([], tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))
