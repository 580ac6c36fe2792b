"""Images in a dataset's rows, or in files that the rows name, as `types.Frames`: PNG or JPEG bytes, file names, or lists of numbers.

The EXIF orientation of an image is applied, as in Hugging Face `datasets` and therefore in LeRobot. An image with more than 8 bits a
channel (distances) is refused as a colour image and never clipped; read as depth, its whole range becomes grey. The size is checked before
decoding.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pyarrow as pa
from jaxtyping import UInt8

from milepost.core import DataError, FrameIndex, UnreadableError, frame_numbers, require_inside, require_plain_file, shown
from milepost.datasets.parquet import RowReader

MOST_PIXELS = 50_000_000
"""Pixels of an image. Small files can claim any size; no robot's camera has as many."""
MOST_BYTES = 512 * 1024**2
_DEEP = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits a channel."""
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
)
_HUGE = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
"""What Pillow raises for broken files: SyntaxError for a broken PNG, plain Python errors for broken headers and EXIF."""


@dataclass(frozen=True, eq=False)
class ImageFrames:
    """The images of one camera in one episode's rows, as `types.Frames`.

    path: returns the parquet file. file: returns a file for its name relative to the dataset. length: T. depth: whether the images are
    16-bit distances, which are read as grey.
    """

    reader: RowReader
    path: Callable[[], Path]
    file: Callable[[str], Path]
    episode: int
    camera: str
    length: int
    depth: bool = False

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, frames: FrameIndex) -> UInt8[np.ndarray, "N H W 3"]:
        """Returns the images at these frames, in any order; a frame may repeat and is decoded once. Raises IndexError outside [0, T)."""
        frames = frame_numbers(frames, len(self))
        unique, inverse = np.unique(frames, return_inverse=True)
        cells = self._cells()
        if not len(unique):
            return np.empty((0, *self._decode(cells, 0).shape), np.uint8)
        images = self._stack(cells, unique)
        return images if np.array_equal(unique, frames) else images[inverse]

    def chunks(self, size: int = 64) -> Iterator[UInt8[np.ndarray, "N H W 3"]]:
        """Yields every image once, in order, at most `size` at a time. Only compressed images stay in memory."""
        if size < 1:
            raise ValueError(f"chunks need a size of at least 1, got {size}")
        cells = self._cells()
        for start in range(0, len(self), size):
            yield self._stack(cells, np.arange(start, min(start + size, len(self))))

    def _cells(self) -> pa.ChunkedArray:
        try:
            cells = self.reader.episode(self.path(), self.episode, [self.camera])[self.camera]
        except DataError as error:
            raise UnreadableError(str(error)) from error
        if len(cells) != self.length:
            raise UnreadableError(f"parquet file {self.path()}: episode {self.episode} should have {self.length} rows, it has {len(cells)}")
        return cells

    def _stack(self, cells: pa.ChunkedArray, frames: np.ndarray) -> np.ndarray:
        first = self._decode(cells, int(frames[0]))
        out = np.empty((len(frames), *first.shape), np.uint8)
        out[0] = first
        for i, frame in enumerate(frames[1:], start=1):
            image = self._decode(cells, int(frame))
            if image.shape != first.shape:
                raise UnreadableError(
                    f"{self._who(int(frame))}: its size is {image.shape[:2]}, that of frame {frames[0]} {first.shape[:2]}"
                )
            out[i] = image
        return out

    def _decode(self, cells: pa.ChunkedArray, frame: int) -> np.ndarray:
        cell = cells[frame]
        try:
            if _is_list(cells.type):
                return _numbers(cell)
            return to_rgb(_opened(cell, self.file), depth=self.depth)
        except DataError as error:
            raise UnreadableError(f"{self._who(frame)} {error}") from error
        except _HUGE as error:
            raise UnreadableError(f"{self._who(frame)} is larger than the {MOST_PIXELS / 1e6:.0f} million pixels that are read") from error
        except _DAMAGED as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "damaged, or no picture"
            raise UnreadableError(f"{self._who(frame)} cannot be read ({reason}); copy or download the file again") from error

    def _who(self, frame: int) -> str:
        return f"parquet file {self.path()}: the picture of camera '{self.camera}', episode {self.episode}, frame {frame}"


def to_rgb(image: PIL.Image.Image, *, depth: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """Returns an image's pixels, upright. DataError for one too large, or of more than 8 bits where no depth is asked for."""
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"is {image.width} x {image.height}: at most {MOST_PIXELS / 1e6:.0f} million pixels are read")
        if not image.mode.startswith(_DEEP):
            return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
        if not depth:
            raise DataError(
                f"has more than 8 bits a channel (mode {image.mode}): distances, not colours; name the camera as depth to see it"
            )
        values = np.asarray(PIL.ImageOps.exif_transpose(image))
        if not values.size or values.min() < 0 or values.max() > 65535 or values.dtype.kind == "f":
            raise DataError("has distances outside 0 to 65535, which no grey is for")
        return (values.astype(np.uint32) * 255 // 65535).astype(np.uint8)[..., None].repeat(3, -1)


def is_deep(cells: pa.ChunkedArray, file: Callable[[str], Path]) -> bool | None:
    """Returns whether the first image of a column has more than 8 bits a channel; None if that cannot be told."""
    try:
        if _is_list(cells.type) or not len(cells):
            return None
        with _opened(cells[0], file) as image:
            return image.mode.startswith(_DEEP)
    except (DataError, *_HUGE, *_DAMAGED):
        return None


def _opened(cell: pa.Scalar, file: Callable[[str], Path]) -> PIL.Image.Image:
    """Opens the image in a cell: its bytes, or the file that it names. DataError for an empty cell and a name outside the dataset."""
    value: Any = cell.as_py()
    content, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, str):
        content, name = None, content
    if content is None and not name:
        raise DataError("is empty")
    if content is None:
        try:
            path = file(require_inside(str(name), source="its row"))
            if path.exists():
                require_plain_file(path, limit=MOST_BYTES)
        except DataError as error:
            raise DataError(f"is not read: {error}") from error
        if not path.exists():
            raise DataError("cannot be read (the file that its row names is missing); copy or download the file again")
        return PIL.Image.open(path)
    if not isinstance(content, bytes):
        raise DataError(f"should be a picture's bytes or the name of a file, it is {shown(content)}")
    return PIL.Image.open(io.BytesIO(content))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _numbers(cell: pa.Scalar) -> UInt8[np.ndarray, "H W 3"]:
    """Returns an image given as nested lists: (H, W, 3), (3, H, W) or grey (H, W), whole numbers from 0 to 255."""
    if not cell.is_valid:
        raise DataError("is empty")
    sides, values = [], cell.values
    sides.append(len(values))
    while _is_list(values.type):
        lengths = (
            np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
            if hasattr(values, "value_lengths")
            else np.array([values.type.list_size])
        )
        if len(lengths) != 1 or not np.isfinite(lengths[0]):
            raise DataError("is a list whose lines differ in length")
        sides.append(int(lengths[0]))
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "biuf" or not len(numbers) or numbers.min() < 0 or numbers.max() > 255 or numbers.size != np.prod(sides):
        raise DataError("is a list of something else than whole numbers from 0 to 255")
    image = numbers.astype(np.uint8).reshape(sides)
    if not np.array_equal(image.reshape(-1), numbers):
        raise DataError("is a list of something else than whole numbers from 0 to 255")
    image = image[..., None] if image.ndim == 2 else image
    image = np.moveaxis(image, 0, -1) if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3) else image
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise DataError(f"is a list of the shape {tuple(sides)}, which is no picture")
    return np.ascontiguousarray(image.repeat(3, -1) if image.shape[2] == 1 else image)
