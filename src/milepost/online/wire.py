"""How frames travel: a request of observations as one .safetensors or .npz, and results as JSON in which an unknown number is null.

Either has an entry "request", JSON in UTF-8 bytes, and an array for each image and state that the request names. An image is (H, W, 3) or
(3, H, W), or the bytes of a JPEG or PNG as a flat array. Nothing is pickled, and sizes are checked before anything is unpacked. A
.safetensors is read and written in a tenth of the time; an .npz needs NumPy alone.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.numpy import load, save

from milepost.core import DataError, parse_json, shown
from milepost.online.sessions import FrameProgress, Observation

NPZ, SAFETENSORS = "application/x-npz", "application/x-safetensors"
"""The types of a body."""
_ZIP = b"PK"
"""What an .npz begins with."""
MOST_ARRAYS = 4096
_NO_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError
)  # fmt: skip
"""What zipfile raises for bytes that are damaged, encrypted or compressed in a way that it does not know."""
_NO_ARRAY = (
    ValueError, TypeError, IndexError, OverflowError, EOFError, OSError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError
)  # fmt: skip
"""What NumPy raises for the bytes of an .npy that are damaged, cut, pickled, or too large."""


_PLAIN = frozenset(map(np.dtype, ("?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")))
"""Types that a .safetensors can have, in this machine's order of bytes."""


class PackedArrays:
    """The arrays of a body by name. One that is damaged is refused where it is looked for, so that it spoils nothing else."""

    def __init__(self, arrays: dict[str, Shaped[np.ndarray, "..."] | DataError]) -> None:
        self._arrays = arrays
        self.nbytes = sum(each.nbytes for each in arrays.values() if not isinstance(each, DataError))

    def get(self, name: str) -> Shaped[np.ndarray, "..."] | None:
        """Returns an array, None if there is none of this name. DataError if it is damaged."""
        array = self._arrays.get(name)
        if isinstance(array, DataError):
            raise array
        return array

    def require(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Returns an array. DataError if it is damaged, or there is none of this name."""
        array = self.get(name)
        if array is None:
            raise DataError(f"the body has no array '{name}', which its request names")
        return array


def json_text(fields: Any) -> str:
    """Returns what is sent as JSON, with NumPy's numbers as numbers. DataError names a field that is NaN, infinite, or of another type."""
    try:
        return json.dumps(fields, default=_plain, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise DataError(_unsendable(fields, "") or f"the call cannot be sent: {error}") from error


def _plain(value: Any) -> Any:
    """Returns a NumPy number as Python's. TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"it has a value of the type {type(value).__name__}")


def _unsendable(value: Any, name: str) -> str:
    """Returns what is wrong with the first field that JSON cannot hold, "" if all can be sent."""
    if isinstance(value, Mapping):
        return next(filter(None, (_unsendable(each, f"{name}.{key}" if name else str(key)) for key, each in value.items())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (_unsendable(each, f"{name}[{place}]") for place, each in enumerate(value))), "")
    if isinstance(value, float | np.floating):
        return "" if math.isfinite(value) else f"'{name}' should be a finite number, got {float(value)}"
    is_known = value is None or isinstance(value, str | int | np.generic)
    return "" if is_known else f"'{name}' cannot be sent: it is of the type {type(value).__name__}"


def pack(request: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> bytes:
    """Returns a request and its arrays as the bytes of a .safetensors, or of an .npz if an array has a type that only that can have."""
    text = np.frombuffer(json_text(request).encode(), dtype=np.uint8)
    if all(array.dtype in _PLAIN for array in arrays.values()):
        return save({"request": text, **arrays})
    file = io.BytesIO()
    np.savez(file, request=text, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def body_type(body: bytes) -> str:
    """Returns which of the types a body has that `pack` made."""
    return NPZ if body.startswith(_ZIP) else SAFETENSORS


def unpack(body: bytes, largest: int) -> tuple[dict[str, Any], PackedArrays]:
    """Returns request and arrays of either form. DataError for what is no such file, or needs more than `largest` bytes."""
    arrays = _of_npz(body, largest) if body.startswith(_ZIP) else _of_safetensors(body)
    text = arrays.pop("request", None)
    if isinstance(text, DataError):
        raise text
    if text is None or text.dtype != np.uint8:
        raise DataError("the body has no entry 'request', which is JSON as bytes")
    request = parse_json(text.tobytes().decode("utf-8", "replace"), source="the entry 'request'", remedy="send one JSON text")
    if not isinstance(request, dict):
        raise DataError("the entry 'request' should be a JSON object")
    return request, PackedArrays(arrays)


def _of_npz(body: bytes, largest: int) -> dict[str, Shaped[np.ndarray, "..."] | DataError]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS or sum(entry.file_size for entry in entries) > largest:
                raise DataError(
                    f"the .npz has more than {MOST_ARRAYS} arrays, or needs more than {largest} bytes: send fewer, or begin the "
                    "server with another --max-body-mb"
                )
            return {entry.filename.removesuffix(".npy"): _entry(archive, entry) for entry in entries}
    except _NO_ARCHIVE as error:
        raise DataError(f"the body is no .npz of numpy.savez: {error}") from error


def _of_safetensors(body: bytes) -> dict[str, Shaped[np.ndarray, "..."] | DataError]:
    try:
        arrays: dict[str, Shaped[np.ndarray, "..."] | DataError] = load(body)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"the body is no .safetensors of NumPy's types, and no .npz of numpy.savez: {error}") from error
    if len(arrays) > MOST_ARRAYS:
        raise DataError(f"the .safetensors has more than {MOST_ARRAYS} arrays: send fewer")
    return arrays


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."] | DataError:
    """Returns the array of an entry, or why it cannot be read."""
    source = f"the array {shown(entry.filename, 100)} of the .npz"
    try:
        return read_npy(archive.read(entry), source)
    except DataError as error:
        return error
    except _NO_ARCHIVE as error:
        return DataError(f"{source} cannot be read: {error}")


def read_npy(content: bytes, source: str) -> Shaped[np.ndarray, "..."]:
    """Returns the array of an .npy; nothing is unpickled. source: for messages. DataError for what is no such file, or a damaged one."""
    try:
        array: Shaped[np.ndarray, "..."] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _NO_ARRAY as error:
        raise DataError(f"{source} cannot be read, because it is no .npy as numpy.save writes it: {error}") from error
    return array


def pack_observations(observations: Sequence[Observation], key: str = "") -> bytes:
    """Returns the body of POST /step. What is no array, or would have to be pickled, travels as a fault of its own frame.

    key: names the request, so that one that is sent again is answered once and for all.
    """
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {}
    for place, observation in enumerate(observations):
        own: dict[str, Shaped[np.ndarray, "..."]] = {}
        try:
            for camera, image in observation.images.items():
                own[f"{place}/{camera}"] = _sendable(image, f"the image of camera '{camera}'")
            if observation.state is not None:
                own[f"{place}/"] = _sendable(observation.state, "the state")
            fault = ""
        except DataError as error:
            own, fault = {}, str(error)
        arrays |= own
        row = {"session": observation.session, "frame": observation.frame, "is_terminal": observation.is_terminal}
        rows.append({  # what JSON cannot hold goes as text, which the server refuses for this frame alone
            **{name: str(value) if _unsendable(value, name) else value for name, value in row.items()},
            "cameras": list(observation.images), "has_state": observation.state is not None, "fault": fault,
        })  # fmt: skip
    return pack({"observations": rows, "key": key}, arrays)


def _sendable(value: Any, what: str) -> Shaped[np.ndarray, "..."]:
    """Returns a value as an array, or the bytes of an image as one. DataError for what is none, or would have to be pickled."""
    try:
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what} is no array: {error}") from error
    if array.dtype.hasobject:
        raise DataError(f"{what} is an array of Python objects; numbers are expected, as an array or as the bytes of a JPEG or PNG")
    return array


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
            arrays[f"frames/{camera}"] = _sendable(frames, f"the frames of camera '{camera}'")
        else:
            arrays[f"sizes/{camera}"] = np.array([len(each) for each in frames], dtype=np.int64)
            arrays[f"frames/{camera}"] = np.frombuffer(b"".join(frames), dtype=np.uint8)
    if state is not None:
        arrays["state"] = _sendable(state, "the state")
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
