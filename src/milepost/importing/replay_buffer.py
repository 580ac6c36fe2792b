"""Reads the Zarr replay buffer of diffusion policy and UMI: arrays of all episodes one after the other in `data`, `meta/episode_ends`.

A folder or a .zip, of Zarr 2 or 3; its arrays are taken in the order of their names. Images are arrays (N, H, W, 3). UMI's are JPEG XL,
which the package imagecodecs decodes. A buffer has neither its frame rate nor an outcome. Where it has no `action`, as UMI's, there is none
unless arrays are named.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from milepost.core import DataError, load
from milepost.datasets import Recording
from milepost.importing.channels import Arrays, Layout
from milepost.importing.source import Choices, Entry, Source

PROPRIOCEPTION = re.compile(r"state|robot\d+_(eef_pos|eef_rot_axis_angle|gripper_width)|robot_eef_pose|agent_pos")
"""What diffusion policy's and UMI's own configs take as the state."""
OTHERS = ("action", "timestamp")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yields the root group. Raises DataError if it is no Zarr store, or damaged, or in a codec that is not here, or zarr is missing."""
    zarr = load("zarr", purpose="Zarr stores", install="milepost[zarr]")
    _register_codecs()
    store = None
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .zip of a Zarr store, or is truncated; copy it again")
    try:
        if path.is_file():
            store = zarr.storage.ZipStore(path, mode="r")
        yield zarr.open_group(store if store is not None else str(path), mode="r")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} is not a Zarr store: it has no group at its top") from error
    except DataError:
        raise
    except (ValueError, RuntimeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(_fault(path, error)) from error
    finally:
        if store is not None:
            store.close()


def _register_codecs() -> None:
    """Makes the image codecs known to Zarr, if the package that has them is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("imagecodecs.numcodecs").register_codecs(verbose=False)


def _fault(path: Path, error: Exception) -> str:
    codec = re.search(r"imagecodecs_\w+", str(error))
    if codec:
        return f"{path} has images in the codec {codec[0]}, which is not installed: pip install imagecodecs"
    return f"{path} cannot be read as a Zarr store: {str(error).strip() or type(error).__name__}"


def is_store(path: Path) -> bool:
    """Returns whether a path looks like a Zarr store: a folder with the file of its top group, or a .zip."""
    if path.is_file():
        return path.suffix.lower() == ".zip"
    return (path / ".zgroup").is_file() or (path / "zarr.json").is_file()


def open_replay_buffer(path: Path, choices: Choices) -> Source:
    """Opens a store. Raises DataError if it has another layout, lacks a frame rate or task, or its arrays do not fit its episodes."""
    with opened(path) as root:
        if "data" not in root or "meta/episode_ends" not in root:
            raise DataError(
                f"{path} lacks data or meta/episode_ends, which a replay buffer has; its top level is {', '.join(root) or 'empty'}"
            )
        places = {
            name: each
            for name, each in sorted(root["data"].members(), key=lambda member: member[0])
            if hasattr(each, "shape") and each.shape
        }
        ends = np.asarray(root["meta/episode_ends"][:]).reshape(-1)
        shapes = {name: tuple(each.shape) for name, each in places.items()}
        dtypes = {name: np.dtype(each.dtype) for name, each in places.items()}
    whole = Arrays(path.name, shapes, dtypes, partial(_read, path))
    numbers = [key for key in shapes if whole.is_vector(key) and key not in OTHERS]
    layout = Layout.choose(
        whole,
        choices,
        images=[key for key in shapes if whole.is_image(key)],
        state=[key for key in numbers if PROPRIOCEPTION.fullmatch(key)] or numbers,
        action=["action"] if "action" in shapes else [],
    )
    bounds = _bounds(path, ends, layout.check(whole, whole))
    fps = choices.rate(None, who=str(path), hint=" (PushT has 10, UMI about 60)")
    words = choices.words("", who=str(path))
    entries = []
    for number in choices.numbers(range(len(bounds))):
        start, stop = bounds[number]
        name = f"{path.name}, episode {number}"
        arrays = Arrays(name, {key: (stop - start, *shape[1:]) for key, shape in shapes.items()}, dtypes, partial(_shifted, path, start))
        entries.append(Entry(number, name, stop - start, partial(_recording, arrays, layout, stop - start, words, choices)))
    notes = layout.notes(whole)
    if not layout.action:
        notes.append("there is no action: --action-keys names the arrays that are to become it")
    return Source("Zarr, a replay buffer", path, fps, tuple(layout.images.values()), entries, notes)


def _bounds(path: Path, ends: Int[np.ndarray, "E"], total: int) -> list[tuple[int, int]]:
    """Returns the rows [start, stop) of each episode. DataError if the ends do not ascend up to the length of the arrays."""
    if not len(ends) or ends.dtype.kind not in "iu" or np.any(np.diff(ends.astype(np.int64), prepend=0) < 0) or ends[-1] != total:
        last = ends[-1] if len(ends) else "missing"
        raise DataError(
            f"{path}: meta/episode_ends must ascend up to the {total} rows of the arrays, and its last value is {last}; arrays and ends do "
            "not belong together"
        )
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


def _read(path: Path, key: str, start: int, stop: int) -> np.ndarray:
    with opened(path) as root:
        return np.asarray(root["data"][key][start:stop])


def _shifted(path: Path, first: int, key: str, start: int, stop: int) -> np.ndarray:
    return _read(path, key, first + start, first + stop)


def _recording(arrays: Arrays, layout: Layout, length: int, task: str, choices: Choices) -> Recording:
    return Recording(
        task=task,
        state=layout.vectors(arrays, layout.state, length),
        action=layout.vectors(arrays, layout.action, length),
        frames=layout.frames(arrays, length, choices),
        facts={"source": arrays.name.rpartition(", ")[2]},
        names=layout.names(arrays),
    )
