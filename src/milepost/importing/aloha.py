"""Reads ALOHA's HDF5 layout, as ACT records it: a file an episode with `observations/qpos`, `observations/images/CAMERA` and `action`.

Images are arrays, or with the attribute `compress` JPEG files padded with zeros to one length. ALOHA's recorder compresses with OpenCV,
which takes red for blue in both directions: a JPEG has the two exchanged, and they are exchanged back here. `--swap-red-blue` is for files
of recorders that do not.
"""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from milepost.core import DataError
from milepost.datasets import Recording
from milepost.importing.channels import Arrays, Layout
from milepost.importing.hdf5 import SUFFIXES, arrays_of, datasets_in, opened, text_of
from milepost.importing.source import Choices, Entry, Source

FPS = 50
"""ALOHA's control frequency; its files do not have it."""
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
NAMES = [f"{side}_{joint}" for side in ("left", "right") for joint in JOINTS]
"""ALOHA's 14 joints, in the order of `qpos` and `action`."""


def open_aloha(path: Path, choices: Choices) -> Source:
    """Opens a folder of episodes, or one of them. Raises DataError if one has another layout, no task is named, or arrays do not fit."""
    files = episode_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} has no .hdf5 file; ALOHA's episodes are episode_0.hdf5 and so on")
    episodes = choices.each(choices.numbers(range(len(files))), lambda number: _arrays(files[number]))
    opened_arrays = [arrays for arrays, _ in episodes.values()]
    first = next((arrays for arrays in opened_arrays if all(shape[0] for shape in arrays.shapes.values())), opened_arrays[0])
    layout = Layout.choose(
        first,
        choices,
        images=[key for key in first.shapes if key.startswith("images/")],
        state=["qpos"] if "qpos" in first.shapes else [],
        action=["action"] if "action" in first.shapes else [],
    )

    def entry(number: int) -> Entry:
        file, (arrays, task) = files[number], episodes[number]
        length = layout.check(arrays, first)
        words = choices.words(task, who=str(file)) if length else ""
        return Entry(number, file.name, length, partial(_recording, arrays, layout, length, words, choices))

    entries = list(choices.each(episodes, entry).values())
    fps = choices.fps or FPS
    notes = [*layout.notes(first), *([] if choices.fps else [f"frame rate: {FPS}, ALOHA's (--fps names another)"])]
    return Source("HDF5, ALOHA's layout", path, fps, tuple(layout.images.values()), entries, notes, "aloha")


def episode_files(folder: Path) -> list[Path]:
    """Returns the HDF5 files of a folder, episode_2 before episode_10."""
    files = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")]
    return sorted(files, key=lambda each: (int((re.search(r"(\d+)$", each.stem) or [0, -1])[1]), each.name))


def _arrays(path: Path) -> tuple[Arrays, str]:
    """Returns the arrays, cameras as `images/CAMERA`, and its instruction if it has one. Compressed images look as others."""
    with opened(path) as file:
        if "observations" not in file or not hasattr(file["observations"], "keys"):
            raise DataError(f"{path} has no group 'observations', as ALOHA's files have; its top level is {', '.join(file) or 'empty'}")
        observations = file["observations"]
        cameras = datasets_in(observations["images"]) if "images" in observations else {}
        places = {**{f"images/{name}": each for name, each in cameras.items()}, **datasets_in(observations)}
        places |= {"action": file["action"]} if "action" in file else {}
        task = next((text for name in ("language_instruction", "task") if (text := text_of(file.attrs.get(name)))), "")
        raw = arrays_of(path, path.name, places)
    jpeg = [key for key in raw.shapes if key.startswith("images/") and _is_compressed(raw, key)]
    if not jpeg:
        return raw, task
    shapes = dict(raw.shapes)
    for key in jpeg:
        sizes = _decoded(raw, key, 0, 1)[0].shape if shapes[key][0] else (0, 0, 3)
        shapes[key] = (shapes[key][0], *sizes)

    def read(key: str, start: int, stop: int) -> np.ndarray:
        return _decoded(raw, key, start, stop) if key in jpeg else raw.read(key, start, stop)

    return Arrays(raw.name, shapes, raw.dtypes, read), task


def _is_compressed(raw: Arrays, key: str) -> bool:
    """Returns whether an array has bytes of files: a padded row a frame, or a row of any length a frame."""
    return (len(raw.shapes[key]) == 2 and raw.dtypes[key] == np.uint8) or (len(raw.shapes[key]) == 1 and raw.dtypes[key].kind == "O")


def _decoded(raw: Arrays, key: str, start: int, stop: int) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns the images of these JPEG files, with red and blue exchanged back. DataError if one is damaged or of another size."""
    images: list[Any] = []
    for i, row in enumerate(raw.read(key, start, stop)):
        try:
            with Image.open(io.BytesIO(row.tobytes()), formats=["JPEG", "PNG"]) as image:
                images.append(np.asarray(image.convert("RGB"))[..., ::-1])
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{raw.name}: '{key}', frame {start + i} is not a JPEG image, or is truncated; record it again") from error
        if images[-1].shape != images[0].shape:
            raise DataError(f"{raw.name}: '{key}' changes its size at frame {start + i}; a camera needs one size")
    return np.stack(images)


def _recording(arrays: Arrays, layout: Layout, length: int, task: str, choices: Choices) -> Recording:
    joints = {key: NAMES for key in ("qpos", "action") if arrays.shapes.get(key, ())[1:] == (len(NAMES),)}
    return Recording(
        task=task,
        state=layout.vectors(arrays, layout.state, length),
        action=layout.vectors(arrays, layout.action, length),
        frames=layout.frames(arrays, length, choices),
        facts={"source": arrays.name},
        names=layout.names(arrays, joints),
    )
