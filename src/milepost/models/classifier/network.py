"""LeRobot's reward classifier as a network, from its config.json: an encoder for every camera's image, and a head over all of them.

Source: `rewards/classifier` of LeRobot 0.6.1. Its convolutional kind weighs a map of 4 x 4 places of the encoder with a learnable kernel.
Its transformer kind takes the first token. Refused: an encoder whose code would have to come from the Hub, more than two classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from milepost.core import DataError, load, plausible, shown

PLACES = 4
"""Rows and columns of the encoder's map."""
OWN_CODE = ("lerobot/resnet10", "helper2424/resnet10")
"""Encoders, LeRobot's default among them, that are a program on the Hub."""
SIZES = {"hidden_dim": 256, "latent_dim": 256, "image_embedding_pooling_dim": 8}
"""Sizes with LeRobot's defaults."""


@dataclass(frozen=True)
class Layout:
    """What a checkpoint's config.json says of its network."""

    cameras: tuple[str, ...]
    encoder: str
    is_convolutional: bool
    hidden_dim: int
    latent_dim: int
    pooling_dim: int

    @classmethod
    def read(cls, path: Path, values: Mapping[str, Any]) -> Layout:
        """Returns the layout. path: of config.json, for errors. DataError if it is not one that is read here."""
        features = values.get("input_features")
        cameras = tuple(key for key in features if key.startswith("observation.image")) if isinstance(features, Mapping) else ()
        if not cameras or values.get("num_cameras", 2) != len(cameras):
            raise DataError(f"{path} has {len(cameras)} cameras in input_features and num_cameras {shown(values.get('num_cameras', 2))}")
        if values.get("num_classes", 2) != 2:
            raise DataError(f"{path} has num_classes {shown(values['num_classes'])}; only a classifier of two, success or not, is read")
        kind, encoder = values.get("model_type", "cnn"), values.get("model_name", OWN_CODE[0])
        if kind not in ("cnn", "transformer") or not isinstance(encoder, str):
            raise DataError(
                f"{path} has model_type {shown(kind)} and model_name {shown(encoder)}; LeRobot has cnn and transformer, with a name"
            )
        sizes = [int(plausible("size", values.get(name, usual), source=str(path), name=name)) for name, usual in SIZES.items()]
        return cls(cameras, encoder, kind == "cnn", *sizes)


class Spatial(nn.Module):
    """The sum over a map's places, each weighed by a kernel."""

    def __init__(self, channels: int, numbers: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(channels, PLACES, PLACES, numbers))

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return torch.einsum("bchw,chwf->bcf", maps, self.kernel).flatten(1)


class ClassifierNetwork(nn.Module):
    """The network, with LeRobot's names of parameters; the encoder, which all cameras share, is there once."""

    def __init__(self, layout: Layout, encoder: nn.Module) -> None:
        super().__init__()
        self.layout, self.encoder = layout, encoder
        config: Any = encoder.config
        if layout.is_convolutional:
            channels = config.hidden_sizes[-1]
            self.encoders = nn.ModuleDict(
                {
                    camera.replace(".", "_"): nn.ModuleDict({
                        "1": Spatial(channels, layout.pooling_dim),
                        "3": nn.Linear(channels * layout.pooling_dim, layout.latent_dim),
                        "4": nn.LayerNorm(layout.latent_dim),
                    })
                    for camera in layout.cameras
                }
            )  # fmt: skip
        width = layout.latent_dim if layout.is_convolutional else config.hidden_size
        self.classifier_head = nn.Sequential(
            nn.Linear(width * len(layout.cameras), layout.hidden_dim), nn.Identity(), nn.LayerNorm(layout.hidden_dim), nn.ReLU(),
            nn.Linear(layout.hidden_dim, 1),
        )  # fmt: skip

    def forward(self, images: Sequence[Float[Tensor, "B 3 H W"]]) -> Float[Tensor, "B"]:
        """Returns the logit of success. images: by camera, normalised. DataError if the encoder's map is not 4 x 4."""
        parts = [self._part(each, camera) for each, camera in zip(images, self.layout.cameras, strict=True)]
        return self.classifier_head(torch.cat(parts, 1))[:, 0]

    def _part(self, images: Float[Tensor, "B 3 H W"], camera: str) -> Float[Tensor, "B L"]:
        output = self.encoder(images).last_hidden_state
        if not self.layout.is_convolutional:
            return output[:, 0]
        if output.shape[2:] != (PLACES, PLACES):
            height, width = images.shape[2:]
            raise DataError(
                f"this classifier takes images of which its encoder makes {PLACES} x {PLACES} places; of {height} x {width} pixels, from "
                f"camera '{camera}', it makes {output.shape[2]} x {output.shape[3]}: label a dataset with images of the size that it was "
                "trained on"
            )
        own: Any = self.encoders[camera.replace(".", "_")]
        return torch.tanh(own["4"](own["3"](own["1"](output))))


def make_network(path: Path, layout: Layout) -> ClassifierNetwork:
    """Returns the network with random weights. Of the encoder only its config is read, from the Hub or its cache; its weights are in the
    checkpoint.

    path: of config.json, for errors. DataError if transformers does not have the encoder itself, or its config cannot be read.
    """
    encoder, who = layout.encoder, f"{path}: this reward classifier of LeRobot has the encoder '{layout.encoder}'"
    mend = "train a success head on the same dataset instead: milepost train DATASET --model success --output-dir FOLDER"
    if encoder in OWN_CODE:
        raise DataError(f"{who}, which is a program on the Hub that milepost does not run; {mend}")
    transformers = load("transformers", purpose="LeRobot's reward classifier", install="milepost[clip]")
    try:
        config = transformers.AutoConfig.from_pretrained(encoder, trust_remote_code=False)
        whole = transformers.AutoModel.from_config(config, trust_remote_code=False)
        return ClassifierNetwork(layout, getattr(whole, "vision_model", whole))
    except (OSError, ValueError, AttributeError, KeyError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{who}, which cannot be made here ({first[0]}); {mend}") from error


def own_names(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights with the encoder's once, wherever the file has them. DataError if it has two that differ."""
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        start, _, rest = name.partition(".")
        _, is_shared, inner = rest.partition(".0.") if start == "encoders" else ("", "", "")
        own = f"encoder.{inner}" if is_shared else name
        if own in result and not torch.equal(result[own], weight):
            raise DataError(f"{path} has two encoders that differ in {own}; LeRobot's cameras share one")
        result[own] = weight
    return result
