"""What does a film cost? `milepost render` against a bare PyAV loop that decodes the same frames and encodes them again, in one run.

    PYTHONPATH=src python benchmarks/render.py

Three bare loops: with the film's settings for H.264; with these and pictures as large as the film shows them (small ones are made larger);
and as large with PyAV's default settings. Prints a markdown table of frames a second and of the film's time over each loop's; processor
time too, which other work on the machine does not change.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from milepost.core.types import Episode
from milepost.datasets.video import VideoFrames, encode_video
from milepost.figures.episode import EpisodeView, HeadView
from milepost.figures.film.render import render_video

FPS = 30
os.environ.setdefault("SVT_LOG", "1")  # errors only
SIZES = {(96, 96): 400, (240, 320): 300, (480, 640): 120, (720, 1280): 50}
CODECS = {"AV1": "libsvtav1", "H.264": "libx264"}
FILM = {"preset": "veryfast", "crf": "18", "g": str(FPS)}
ROUNDS = 3


def scene(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A shaded ground with a little noise, and a disc that moves over it."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(0)
    ground = np.stack([120 + 60 * y / height, 100 + 80 * x / width, 140 - 40 * y / height], axis=-1)
    ground += rng.normal(0, 8, (height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:height, :width]
    for i in range(count):
        image = ground + rng.normal(0, 2, (height, width, 1))
        image[(x - width * (0.2 + 0.6 * i / count)) ** 2 + (y - height / 2) ** 2 < (height / 9) ** 2] = (230, 90, 60)
        yield image.clip(0, 255).astype(np.uint8)


def bare(source: Path, out: Path, options: dict[str, str], factor: int = 1) -> int:
    """Decode in order, encode: what anyone would write."""
    with av.open(str(source)) as reader, av.open(str(out), "w", format="mp4") as writer:
        film = reader.streams.video[0]
        film.thread_type = "AUTO"
        stream = writer.add_stream("libx264", rate=FPS, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = factor * film.height, factor * film.width, "yuv420p"
        for i, frame in enumerate(reader.decode(film)):
            larger = frame.reformat(stream.width, stream.height, format="yuv420p", interpolation="POINT") if factor > 1 else frame
            larger.pts, larger.time_base = i, Fraction(1, FPS)
            writer.mux(stream.encode(larger))
        writer.mux(stream.encode())
        return i + 1


def ours(source: Path, out: Path, count: int) -> int:
    curve = np.linspace(0, 1, count, dtype=np.float32)
    stage = np.arange(count) * 3 // count
    frames = VideoFrames(source, np.arange(count) / FPS, FPS)
    episode = Episode(0, 0, "put the mug on the shelf", FPS, count, np.zeros((count, 0), np.float32), {"top": frames})
    head = HeadView({"sarm": curve, "topreward": curve**2}, true_stage=stage, stage_names=("reach", "grasp", "place"))
    render_video(episode, EpisodeView("episode 0: put the mug on the shelf", FPS, {"sparse": head}, weight=curve), ["top"], out)
    return count


def timed(functions: list[Callable[[], int]]) -> list[tuple[float, float]]:
    """The least (wall, processor) time of each, taken in turns so that a busy machine slows all alike."""
    best = [(float("inf"), float("inf"))] * len(functions)
    for _, (place, function) in itertools.product(range(ROUNDS), enumerate(functions)):
        wall, processor = time.perf_counter(), time.process_time()
        function()
        taken = time.perf_counter() - wall, time.process_time() - processor
        best[place] = min(best[place][0], taken[0]), min(best[place][1], taken[1])
    return best


def main() -> None:
    print(
        "| source | frames | bare | as large | as large, defaults | film | / bare | / as large | / defaults | processor time / as large |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for ((height, width), count), (codec, encoder) in itertools.product(SIZES.items(), CODECS.items()):
            source, out = Path(folder) / "source.mp4", Path(folder) / "film.mp4"
            encode_video(source, scene(count, height, width), FPS, codec=encoder)
            factor = -(-320 // width)
            loops = [partial(bare, source, out, FILM), partial(bare, source, out, FILM, factor), partial(bare, source, out, {}, factor)]
            *plain, film = timed([*loops, partial(ours, source, out, count)])
            rates = " | ".join(f"{count / wall:.0f}/s" for wall, _ in (*plain, film))
            ratios = " | ".join(f"{film[0] / wall:.2f}" for wall, _ in plain)
            print(f"| {codec} {height} x {width} | {count} | {rates} | {ratios} | {film[1] / plain[1][1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
