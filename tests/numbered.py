"""A dataset whose pictures say which frame of which episode and camera they are, as a binary pattern that survives any codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from milepost.core.stages import progress, proportions, targets
from milepost.core.types import Progress, Segment
from milepost.datasets.reader import open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.writer import write_dataset
from milepost.progress.store import ProgressStore

BLOCK, COLUMNS, ROWS = 24, 4, 3
CAMERAS = ("observation.images.top", "observation.images.wrist")
LENGTHS = (60, 45, 80)
NAMES = ("reach", "lift", "place")
TASKS = ("lift the cube", "open the drawer")
FPS = 20
READ = f"""(video) => {{
  const canvas = document.createElement("canvas");
  canvas.width = {BLOCK * COLUMNS}; canvas.height = {BLOCK * ROWS};
  const context = canvas.getContext("2d", {{willReadFrequently: true}});
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  let word = 0;
  for (let bit = 0; bit < {COLUMNS * ROWS}; bit += 1) {{
    const [x, y] = [(bit % {COLUMNS}) * {BLOCK} + {BLOCK // 2}, Math.floor(bit / {COLUMNS}) * {BLOCK} + {BLOCK // 2}];
    if (context.getImageData(x, y, 1, 1).data[1] > 127) word |= 1 << bit;
  }}
  return {{frame: word & 255, episode: (word >> 8) & 7, camera: word >> 11}};
}}"""
"""JavaScript: a video element -> what the picture it shows says it is."""


def image(frame: int, episode: int, camera: int) -> np.ndarray:
    """(72, 96, 3) uint8: twelve blocks, white for 1: eight bits of the frame, three of the episode, one of the camera."""
    word = frame | episode << 8 | camera << 11
    bits = np.array([word >> bit & 1 for bit in range(ROWS * COLUMNS)], np.uint8).reshape(ROWS, COLUMNS)
    return (20 + 215 * bits).repeat(BLOCK, 0).repeat(BLOCK, 1)[..., None].repeat(3, -1)


def _pictures(length: int, episode: int, camera: int) -> Iterator[np.ndarray]:
    return (image(frame, episode, camera) for frame in range(length))


def _segments(length: int) -> list[Segment]:
    a, b = length // 3, 2 * length // 3
    return [Segment(NAMES[0], 0, a), Segment(NAMES[1], a, b), Segment(NAMES[2], b, length)]


def write_numbered(root: Path, *, codec: str = "libx264", lengths: Sequence[int] = LENGTHS) -> Path:
    """Episode 1 is a failure; all but the last are annotated, in thirds. Two progress files: one near the truth, one that falls back."""
    recordings, shares = [], proportions([_segments(length) for length in lengths], NAMES)
    for episode, length in enumerate(lengths):
        stage, tau = targets(_segments(length), NAMES, length, success=True)
        recordings.append(
            Recording(
                task=TASKS[episode % 2],
                state=np.linspace(0, 1, length, dtype=np.float32)[:, None],
                action=np.zeros((length, 1), np.float32),
                frames={name: _pictures(length, episode, camera) for camera, name in enumerate(CAMERAS)},
                columns={"truth.progress": progress(stage, tau, shares)},
                segments={"sparse": _segments(length)} if episode < len(lengths) - 1 else {},
                facts={"success": episode != 1, "kind": ("expert", "dropping", "clumsy")[episode % 3], "scene": episode},
            )
        )
    write_dataset(root, recordings, fps=FPS, codec=codec, proportions={"sparse": dict(zip(NAMES, shares.shares, strict=True))})
    write_curves(root)
    return root


def write_curves(root: Path) -> None:
    """`near`: from 0 to 1, unknown at frames 10 to 14. `fallen`: falls back by 0.6 in the middle of every episode but the first."""
    dataset = open_dataset(root)
    for name in ("near", "fallen"):
        made = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint}
        store = ProgressStore(root / f"{name}_progress.parquet", made)
        for number in dataset.episode_indices:
            store.add(Progress(number, _curve(name, number, dataset.length(number))), dataset.row_range(number)[0])
        store.finish()


def _curve(name: str, number: int, length: int) -> np.ndarray:
    value = np.linspace(0, 1, length, dtype=np.float32) * np.float32(0.98 - 0.3 * (number == 1))
    if name == "near":
        value[10:15] = np.nan
    elif number:
        value[length // 2 : length // 2 + 8] = np.float32(max(0.0, value[length // 2] - 0.6))
    return value
