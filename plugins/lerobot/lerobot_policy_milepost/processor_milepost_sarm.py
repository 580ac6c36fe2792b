"""What stands before and after milepost's SARM in LeRobot's pipelines: windows of images in, the frozen encoder's features out.

Training needs none of it: batches of single images go through without being encoded, because the model takes its features by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
    TransitionKey,
)
from torch import Tensor

from lerobot_policy_milepost.configuration_milepost_sarm import MilepostSARMConfig
from lerobot_policy_milepost.shared import after_the_model
from milepost import DataError, SARMConfig
from milepost.core import as_uint8
from milepost.encoders import Encoder, load_encoder
from milepost.models import pad_state


@ProcessorStepRegistry.register("milepost_sarm_encoder")
class MilepostSARMEncoderStep(ProcessorStep):
    """Adds milepost_images (B, L, C, P), _text (B, M), _state (B, L, Z) and _valid (B, L) to batches that have windows of images."""

    def __init__(self, sarm: dict[str, Any], device: str = "cpu") -> None:
        """sarm: milepost's config.json. device: where the encoder runs, which is loaded with the first window."""
        self.sarm, self.device = SARMConfig.from_dict(sarm), device
        self._encoder: Encoder | None = None

    def get_config(self) -> dict[str, Any]:
        return {"sarm": self.sarm.to_dict(), "device": self.device}

    def transform_features(self, features: Any) -> Any:
        return features

    def __call__(self, transition: Any) -> Any:
        """Returns the transition; the images of the model's cameras are left out, since nothing after this step looks at them."""
        new = transition.copy()
        observation = dict(new.get(TransitionKey.OBSERVATION) or {})
        images = {camera: observation.pop(camera) for camera in self.sarm.cameras if camera in observation}
        if any(each.ndim == 5 for each in images.values()):
            observation |= self._encoded(images, observation, new.get(TransitionKey.COMPLEMENTARY_DATA) or {})
        new[TransitionKey.OBSERVATION] = observation
        return new

    def _encoded(self, images: dict[str, Tensor], observation: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        missing = [camera for camera in self.sarm.cameras if camera not in images or images[camera].ndim != 5]
        if missing:
            raise DataError(f"milepost_sarm needs windows of images (B, L, C, H, W) of every camera, and has none of {', '.join(missing)}")
        size, length = images[self.sarm.image_key].shape[:2]
        if length != self.sarm.width:
            raise DataError(f"milepost_sarm needs {self.sarm.width} frames a window (config.window_indices), these have {length}")
        tasks = extra.get("task")
        if tasks is None or len(tasks) != size:
            raise DataError(f"milepost_sarm needs the instruction of each of {size} samples: 'task'")
        if self.sarm.state_key not in observation:
            raise DataError(f"milepost_sarm needs the robot's state '{self.sarm.state_key}', the batch has: {', '.join(observation)}")
        encoder = self._load()
        views = [encoder.images(pixels(images[camera], camera)) for camera in self.sarm.cameras]
        features = np.stack(views, axis=1)
        state = observation[self.sarm.state_key].cpu().numpy().astype(np.float32)
        padded = pad_state(state.reshape(-1, state.shape[-1]), self.sarm)
        return {
            "milepost_images": torch.from_numpy(features.reshape(size, length, *features.shape[1:])),
            "milepost_text": torch.from_numpy(encoder.text(list(tasks))),
            "milepost_state": torch.from_numpy(padded.reshape(size, length, -1)),
            "milepost_valid": self._valid(extra, size, length),
        }

    def _valid(self, extra: dict[str, Any], size: int, length: int) -> Tensor:
        """Returns which frames of the windows are real: of a causal one, the first and those that LeRobot does not call padding."""
        padding = extra.get(f"{self.sarm.image_key}_is_pad")
        if self.sarm.window == "centred" or padding is None:
            return torch.ones(size, length, dtype=torch.bool)
        valid = ~padding.cpu().reshape(size, length)
        return torch.cat([torch.ones(size, 1, dtype=torch.bool), valid[:, 1:]], dim=1)

    def _load(self) -> Encoder:
        if self._encoder is None:
            self._encoder = load_encoder(self.sarm.encoder, device=self.device, text_width=self.sarm.text_dim)
        return self._encoder


def pixels(images: Tensor, camera: str) -> np.ndarray:
    """Returns windows of images (B, L, 3, H, W), uint8 or float in [0, 1], as (B * L, H, W, 3) uint8."""
    array = images.cpu().numpy()
    return as_uint8(np.moveaxis(array.reshape(-1, *array.shape[2:]), 1, -1), f"camera '{camera}'")


def make_milepost_sarm_pre_post_processors(
    config: MilepostSARMConfig, dataset_stats: Any = None
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[Tensor, Tensor]]:
    """Returns the pipelines before and after the model. dataset_stats: not used, the statistics are part of the config."""
    device = config.device or "cpu"
    steps: list[Any] = [
        AddBatchDimensionProcessorStep(),
        MilepostSARMEncoderStep(config.sarm.to_dict(), device),
        DeviceProcessorStep(device),
    ]
    before = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](steps, name="policy_preprocessor")
    return before, after_the_model()
