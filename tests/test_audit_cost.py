"""What an audit costs: each image that differs is decoded and encoded once, whatever the number of copies and models that see it."""

import dataclasses

import numpy as np

from milepost.core import ArrayFrames, Episode
from milepost.encoders import PixelImages
from milepost.metrics.controls import FAULTS
from milepost.progress import audit
from milepost.testing import ListDataset, dot_episodes, tiny_sarm


class CountedFrames(ArrayFrames):
    """Images that count how often one of them was read."""

    read = 0

    def __getitem__(self, frames: object) -> np.ndarray:
        images = super().__getitem__(frames)
        CountedFrames.read += len(images)
        return images

    def chunks(self, size: int = 64) -> object:
        for images in super().chunks(size):
            CountedFrames.read += len(images)
            yield images


class CountedEncoder(PixelImages):
    """The built-in encoder, counting images."""

    encoded = 0

    def encode(self, prepared: object) -> np.ndarray:
        self.encoded += len(prepared)
        return super().encode(prepared)


def counted(episode: Episode) -> Episode:
    return dataclasses.replace(episode, cameras={name: CountedFrames(frames.images) for name, frames in episode.cameras.items()})


def test_an_image_is_decoded_and_encoded_once_for_all_copies_and_both_models() -> None:
    episodes = dot_episodes(5, failing=2)
    model, encoder = tiny_sarm(), CountedEncoder(tiny_sarm().config.text_dim)
    model.use_encoder(encoder)
    expected = audit(tiny_sarm(), ListDataset(episodes)).curves
    CountedFrames.read = 0
    run = audit(model, ListDataset([counted(each) for each in episodes]), beside={"untrained": model.untrained(0)})
    images = sum(each.length for each in episodes) * len(model.config.cameras)
    first = len(episodes) * len(episodes[0].cameras)  # one image of each is read to know their size
    assert CountedFrames.read == sum(each.length * len(each.cameras) for each in episodes) + first
    assert encoder.encoded == images * (1 + len(FAULTS))
    for one, other in zip(run.curves, expected, strict=True):
        np.testing.assert_array_equal(one.real, other.real)
        assert one.controls.keys() == other.controls.keys()
        for name, curve in one.controls.items():
            np.testing.assert_array_equal(curve, other.controls[name])
