"""Preprocessing as the published image processors do it, level for level."""

import json
from pathlib import Path

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.encoders.resize import Preprocessing

FOLDER = Path(__file__).parents[1] / "data" / "clip_tiny"
CONFIG = json.loads((FOLDER / "preprocessor_config.json").read_text())
SIGLIP = {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}


@pytest.mark.parametrize("case", ["0", "1"])
def test_resized_images_are_lerobots_to_the_level(case):
    golden = np.load(FOLDER / "golden.npz")
    pixels = Preprocessing.from_config(CONFIG).images(golden[f"frames_{case}"])
    np.testing.assert_array_equal(pixels.numpy(), golden[f"resized_{case}"])


@pytest.mark.parametrize("case", ["0", "1"])
def test_normalised_pixels_are_lerobots(case):
    golden, facts = np.load(FOLDER / "golden.npz"), json.loads((FOLDER / "golden.json").read_text())["pixel_values"][f"frames_{case}"]
    preprocessing = Preprocessing.from_config(CONFIG)
    pixels = preprocessing.normalise(preprocessing.images(golden[f"frames_{case}"])).double()
    assert list(pixels.shape) == facts["shape"]
    np.testing.assert_allclose(pixels.flatten()[:8], facts["first"], rtol=0, atol=1e-6)
    np.testing.assert_allclose([pixels.sum(), pixels.abs().sum()], [facts["sum"], facts["abs_sum"]], rtol=0, atol=0.05)


def test_siglip_squeezes_into_a_square_and_crops_nothing():
    preprocessing = Preprocessing.from_config(SIGLIP)
    image = np.zeros((1, 40, 90, 3), np.uint8)
    image[:, :, 45:] = 255  # a crop would move the edge, a squeeze leaves it in the middle
    pixels = preprocessing.images(image)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels[..., :14].max() == 0
    assert pixels[..., 18:].min() == 255
    np.testing.assert_allclose(preprocessing.normalise(pixels).aminmax(), (-1, 1), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (480, 640), (640, 480), (31, 33), (224, 301), (224, 224), (1, 1)])
def test_every_shape_becomes_the_networks(height, width):
    image = np.full((2, height, width, 3), (10, 200, 255), np.uint8)
    pixels = Preprocessing.from_config(CONFIG).images(image)
    assert pixels.shape == (2, 3, 224, 224)
    assert pixels.is_contiguous()
    np.testing.assert_array_equal(pixels[0, :, 0, 0], (10, 200, 255))  # a flat image stays flat
    assert len(np.unique(pixels)) == 3


def test_an_image_of_the_right_size_is_not_touched(rng):
    image = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    image.flags.writeable = False
    np.testing.assert_array_equal(Preprocessing.from_config(CONFIG).images(image).permute(0, 2, 3, 1), image)


def test_the_centre_is_kept():
    image = np.zeros((1, 224, 301, 3), np.uint8)
    image[:, :, 38 : 38 + 224] = 255  # 77 columns too many: 38 go on the left, 39 on the right
    assert Preprocessing.from_config(CONFIG).images(image).min() == 255


def test_old_and_new_spellings_mean_the_same():
    new = {**CONFIG, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_rescale": True}
    assert Preprocessing.from_config(new) == Preprocessing.from_config(CONFIG)
    assert Preprocessing.from_config({**SIGLIP, "size": 32}) == Preprocessing.from_config(SIGLIP)


def test_the_key_tells_any_two_apart():
    configs = [CONFIG, SIGLIP, {**SIGLIP, "resample": 2}, {**SIGLIP, "image_mean": [0.4] * 3}, {**SIGLIP, "do_normalize": False}]
    assert len({Preprocessing.from_config(config).key for config in configs}) == len(configs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"size": {"shortest_edge": 32}}, "many shapes"),
        ({"resample": 1}, "filter 1"),
        ({"do_resize": False}, "size"),
        ({"image_mean": [0.5]}, "three numbers"),
        ({"image_std": None}, "three numbers"),
        ({"crop_size": 64}, "larger"),
    ],
)
def test_what_is_not_supported_is_refused(change, says):
    with pytest.raises(DataError, match=says):
        Preprocessing.from_config({**SIGLIP, **change})
