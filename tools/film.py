"""Join the films of `milepost render` into one animated WebP that a README shows: half the speed, and a rest at the end of each.

    milepost simulate scenes --tasks drawer-open-v3 --successes 8 --failures 6 --size 256 --seed 7
    milepost label scenes --model sarm        # trained on other scenes, by the tutorial on teleoperation; the same with --model elapsed
    milepost render scenes --episodes 3,9,10 --progress scenes/sarm_progress.parquet scenes/elapsed_progress.parquet \\
        --camera-key observation.images.top observation.images.wrist
    python tools/film.py progress_videos/episode_0000{10,03,09}_progress.mp4 --output docs/figures/film.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
from PIL import Image

WIDTH, QUALITY, REST_MS = 520, 60, 1300


def frames(path: Path) -> tuple[list[Image.Image], int]:
    """Returns the frames of a film, WIDTH pixels wide, and how long one is shown at half the speed, in milliseconds."""
    with av.open(path) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    if rate is None:
        raise ValueError(f"{path} does not say how many frames a second it has")
    return [image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS) for image in images], round(
        2000 / rate
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    images: list[Image.Image] = []
    durations: list[int] = []
    for path in args.films:
        own, milliseconds = frames(path)
        images += own
        durations += [milliseconds] * (len(own) - 1) + [REST_MS]
    images[0].save(args.output, save_all=True, append_images=images[1:], duration=durations, loop=0, quality=QUALITY, method=4)
    print(f"{args.output}: {len(images)} frames, {sum(durations) / 1000:.1f} s, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
