"""What does reading an episode cost? `VideoFrames.chunks` against a plain in-order PyAV loop over the same span, in one run.

    PYTHONPATH=src python benchmarks/decode.py

Films are made in a temporary folder: a textured ground that slides and noise, several episodes in one mp4, the middle one is read.
Prints a markdown table of times and of the growth of the process's memory, for an episode and for one four times as long.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from milepost.datasets.video import VideoFrames

FPS = 30
os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder otherwise prints twenty lines a video
CODECS = {
    "AV1 g=2": ("libsvtav1", {"g": "2", "crf": "30", "preset": "12"}),
    "H.264 g=2": ("libx264", {"g": "2", "crf": "30", "preset": "veryfast"}),
    "H.264 g=30": ("libx264", {"g": "30", "crf": "30", "preset": "veryfast"}),
}
SIZES = {(96, 96): 400, (480, 640): 80}
ROUNDS = 7


def film(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 200, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for i in range(count):
        yield np.roll(ground, 2 * i, axis=1) + rng.integers(0, 12, ground.shape, dtype=np.uint8)


def write(path: Path, count: int, size: tuple[int, int], codec: str) -> None:
    name, options = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=FPS, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for image in film(count, *size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def plain(path: Path, start: int, count: int, threads: str) -> int:
    """Seek, decode in order, convert: what anyone would write. Returns a checksum so that no work can be skipped."""
    total = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        container.seek(round(start / FPS / stream.time_base), stream=stream)
        first = start / FPS - 1e-3
        for frame in itertools.islice((frame for frame in container.decode(stream) if frame.time >= first), count):
            total += int(frame.to_ndarray(format="rgb24")[0, 0, 0])
    return total


def ours(path: Path, start: int, count: int) -> int:
    frames = VideoFrames(path, (start + np.arange(count)) / FPS, FPS)
    return sum(int(chunk[:, 0, 0, 0].sum()) for chunk in frames.chunks())


def timed(functions: list[Callable[[], int]]) -> list[float]:
    """The median time of each, taken in turns so that a busy machine slows all alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        sums = set()
        for function, taken in zip(functions, seconds, strict=True):
            began = time.perf_counter()
            sums.add(function())
            taken.append(time.perf_counter() - began)
        assert len(sums) == 1, "the loops did not read the same pixels"
    return [statistics.median(taken) for taken in seconds]


def grown_mib(path: Path, count: int) -> float:
    """How much the peak memory of a fresh process grows when it reads `count` frames in chunks of 16."""

    def read(frames: int) -> int:
        for _ in VideoFrames(path, np.arange(frames) / FPS, FPS).chunks(16):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = read(48)
    return (read(count) - before) / 1024


def main() -> None:
    print("| codec | size | frames | plain loop | plain loop, threads | `chunks` | / plain | / plain, threads |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for (codec, size), count in (((c, s), n) for s, n in SIZES.items() for c in CODECS):
            path = Path(folder) / "film.mp4"
            write(path, 2 * count, size, codec)
            span = (path, count // 2, count)
            slow, threaded, mine = timed([partial(plain, *span, "SLICE"), partial(plain, *span, "AUTO"), partial(ours, *span)])
            row = f"| {codec} | {size[0]} x {size[1]} | {count} | {slow:.3f} s | {threaded:.3f} s | {mine:.3f} s "
            print(f"{row}| {mine / slow:.2f} | {mine / threaded:.2f} |", flush=True)
        write(path, 480, (240, 320), "H.264 g=30")
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, maxtasksperchild=1) as pool:
            growth = [pool.apply(grown_mib, (path, count)) for count in (120, 480)]
    print(f"\nPeak memory above that of a 48-frame episode, 240 x 320, chunks of 16: {growth[0]:.1f} MiB for 120 frames, ", end="")
    print(f"{growth[1]:.1f} MiB for 480 (all frames at once would be {480 * 240 * 320 * 3 / 2**20:.0f} MiB).")


if __name__ == "__main__":
    main()
