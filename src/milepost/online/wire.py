"""How frames travel: a request of observations as one .npz, and results as JSON in which an unknown number is null.

An .npz has an entry "request", JSON in UTF-8 bytes, and an array for each image and state that the request names. An image is (H, W, 3) or
(3, H, W), or the bytes of a JPEG or PNG as a flat array. Nothing is pickled, and sizes are checked before anything is unpacked.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from milepost.core import DataError, parse_json
from milepost.online.sessions import FrameProgress, Observation

NPZ = "application/x-npz"
MOST_ARRAYS = 4096
_NO_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, OSError, ValueError
)  # fmt: skip
"""What zipfile raises for bytes that are damaged, encrypted or compressed in a way that it does not know."""
_NO_ARRAY = (
    ValueError, TypeError, IndexError, OverflowError, EOFError, OSError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError
)  # fmt: skip
"""What NumPy raises for the bytes of an .npy that are damaged, cut, pickled, or too large."""


def pack(request: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> bytes:
    """Returns a request and its arrays as the bytes of an .npz."""
    text = np.frombuffer(json.dumps(request).encode(), dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, request=text, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpack(body: bytes, largest: int) -> tuple[dict[str, Any], dict[str, Shaped[np.ndarray, "..."]]]:
    """Returns request and arrays. DataError for what is no such file, needs more than `largest` bytes, or has a damaged array."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS or sum(entry.file_size for entry in entries) > largest:
                raise DataError(f"the .npz has more than {MOST_ARRAYS} arrays, or needs more than {largest} bytes")
            arrays = {
                entry.filename.removesuffix(".npy"): read_npy(archive.read(entry), f"the array '{entry.filename}' of the .npz")
                for entry in entries
            }
    except DataError:
        raise
    except _NO_ARCHIVE as error:
        raise DataError(f"the body is no .npz of numpy.savez: {error}") from error
    text = arrays.pop("request", None)
    if text is None or text.dtype != np.uint8:
        raise DataError("the .npz has no entry 'request', which is JSON as bytes")
    request = parse_json(text.tobytes().decode("utf-8", "replace"), source="the entry 'request'")
    if not isinstance(request, dict):
        raise DataError("the entry 'request' should be a JSON object")
    return request, arrays


def read_npy(content: bytes, source: str) -> Shaped[np.ndarray, "..."]:
    """Returns the array of an .npy; nothing is unpickled. source: for messages. DataError for what is no such file, or a damaged one."""
    try:
        array: Shaped[np.ndarray, "..."] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _NO_ARRAY as error:
        raise DataError(f"{source} cannot be read, because it is no .npy as numpy.save writes it: {error}") from error
    return array


def pack_observations(observations: Sequence[Observation], key: str = "") -> bytes:
    """Returns the body of POST /step. key: names the request, so that one that is sent again is answered once and for all."""
    rows, arrays = [], {}
    for place, observation in enumerate(observations):
        for camera, image in observation.images.items():
            arrays[f"{place}/{camera}"] = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else np.asarray(image)
        if observation.state is not None:
            arrays[f"{place}/"] = np.asarray(observation.state)
        rows.append({
            "session": observation.session, "frame": observation.frame, "is_terminal": observation.is_terminal,
            "cameras": list(observation.images), "has_state": observation.state is not None,
        })  # fmt: skip
    return pack({"observations": rows, "key": key}, arrays)


def pack_episode(
    images: Mapping[str, Shaped[np.ndarray, "..."] | Sequence[bytes]],
    state: Shaped[np.ndarray, "..."] | None = None,
    *,
    task: str,
    fps: float,
    is_terminal: bool = False,
    key: str = "",
) -> bytes:
    """Returns the body of POST /relabel. images: camera name -> (T, H, W, 3), or the bytes of a JPEG or PNG for each frame."""
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {}
    for camera, frames in images.items():
        if isinstance(frames, np.ndarray):
            arrays[f"frames/{camera}"] = frames
        else:
            arrays[f"sizes/{camera}"] = np.array([len(each) for each in frames], dtype=np.int64)
            arrays[f"frames/{camera}"] = np.frombuffer(b"".join(frames), dtype=np.uint8)
    if state is not None:
        arrays["state"] = np.asarray(state)
    request = {"call": "relabel", "task": task, "fps": fps, "cameras": list(images), "is_terminal": is_terminal, "key": key}
    return pack(request, arrays)


def to_json(result: FrameProgress) -> dict[str, Any]:
    """Returns a result as JSON holds it: an unknown number is null."""
    fields = vars(result) | {"signals": {name: finite(value) for name, value in result.signals.items()}}
    return {name: finite(value) if isinstance(value, float) else value for name, value in fields.items()}


def finite(value: float) -> float | None:
    """Returns a finite number, and None for any other."""
    return value if math.isfinite(value) else None


def from_json(fields: Mapping[str, Any]) -> FrameProgress:
    """Returns the result that `to_json` wrote."""
    numbers = {name: math.nan if fields[name] is None else float(fields[name]) for name in ("progress", "reward", "age_s")}
    signals = {name: math.nan if value is None else float(value) for name, value in fields["signals"].items()}
    return FrameProgress(
        str(fields["session"]), int(fields["frame"]), signals=signals, fresh=bool(fields["fresh"]), is_success=bool(fields["is_success"]),
        events=tuple(fields["events"]), reason=str(fields["reason"]), **numbers,
    )  # fmt: skip
