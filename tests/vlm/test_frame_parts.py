"""Frames as content parts."""

from __future__ import annotations

import base64
import io

import numpy as np
import PIL.Image
import pytest

from milepost.core.errors import DataError
from milepost.vlm.frame_parts import data_url, frame_parts


def pixels(url: str) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def frames(rng) -> np.ndarray:
    return rng.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)


def test_png_keeps_every_pixel(frames):
    parts = frame_parts(frames, encoding="png")
    shown = [pixels(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
    np.testing.assert_array_equal(shown, frames)
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_jpeg_comes_close():
    smooth = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], (24, 32, 3))  # not contiguous
    url = data_url(smooth)
    assert url.startswith("data:image/jpeg;base64,")
    assert np.abs(pixels(url).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["Frame 1:", "Frame 2:", "Frame 3:"]),
        ({"times_s": [0.0, 0.5, 61.25]}, ["Frame 1, 0.00 s:", "Frame 2, 0.50 s:", "Frame 3, 61.25 s:"]),
        ({"times_s": np.array([0.0, 0.5, 1.0]), "caption": "<{time_s:.1f} seconds>"}, ["<0.0 seconds>", "<0.5 seconds>", "<1.0 seconds>"]),
    ],
)
def test_each_frame_follows_its_caption(frames, options, words):
    parts = frame_parts(frames, **options, extra={"detail": "low"})
    assert [part["type"] for part in parts] == ["text", "image_url"] * 3
    assert [part["text"] for part in parts[::2]] == words
    assert parts[1]["image_url"]["detail"] == "low"


@pytest.mark.parametrize(
    ("wrong", "options", "said"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "no frames"),
        (np.zeros((2, 8, 0, 3), np.uint8), {}, "at least one pixel"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"times_s": [1.0]}, "2 frames, 1 times"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"caption": "{time_s}"}, "needs times_s"),
    ],
)
def test_what_cannot_be_shown_is_refused(wrong, options, said):
    with pytest.raises(DataError, match=said):
        frame_parts(wrong, **options)
