"""A batch of windows as a LeRobot data loader gives it -> what `SARMModel.compute_reward` takes: features, states, lengths.

Nothing is drawn at random and the batch given is left as it was. Training makes its own samples (`TrainingSet`), so no targets are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8

from milepost.core import DataError, as_uint8, require_cameras
from milepost.encoders import load_encoder
from milepost.models.processing import BatchStep, to_cpu
from milepost.models.sarm.checkpoint import StateStats, with_state_stats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.samples import pad_state


@runtime_checkable
class FeatureEncoder(Protocol):
    """A vision-text model: images and sentences -> features of config.image_dim and config.text_dim numbers, as any `Encoder` gives."""

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N E"]: ...

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]: ...


@runtime_checkable
class Projecting(FeatureEncoder, Protocol):
    """A `SARMModel`: what its encoder gives is not yet what its networks take."""

    def project(self, features: Shaped[np.ndarray, "N C P"]) -> Float[np.ndarray, "N C E"]: ...


def make_sarm_processors(
    config: SARMConfig,
    *,
    dataset_stats: Mapping[str, Any] | None = None,
    dataset_meta: Any = None,
    encoder: FeatureEncoder | None = None,
) -> tuple[BatchStep, BatchStep]:
    """Returns the steps before and after the model.

    dataset_stats: key -> {"mean", "std"}, instead of the config's own state statistics; else those of `dataset_meta`. encoder: the model
    itself, so that both see the same, or any `encoders.Encoder`; without, `config.encoder` is loaded when a batch first needs it.
    """
    dataset_stats = dataset_stats or getattr(dataset_meta, "stats", None)
    if dataset_stats and config.state_key in dataset_stats:
        mean, std = (tuple(np.asarray(dataset_stats[config.state_key][name]).ravel().tolist()) for name in ("mean", "std"))
        config = with_state_stats(config, StateStats(mean, std, "dataset_stats"))

    @cache
    def loaded() -> FeatureEncoder:
        return encoder or _load(config)

    def before(batch: Mapping[str, Any]) -> dict[str, Any]:
        return encode_batch(batch, config, loaded)

    return before, to_cpu


def encode_batch(batch: Mapping[str, Any], config: SARMConfig, encoder: Callable[[], FeatureEncoder]) -> dict[str, Any]:
    """Returns the batch, with video_features (B, L, C, E), text_features (B, M), state_features (B, L, Z) and lengths (B,) added where
    missing.

    Reads each camera (B, L, H, W, 3) or (B, L, 3, H, W), uint8 or float in [0, 1]; the state (B, L, S) in raw units; "task", B sentences
    or one. `encoder` is called only if something must be encoded. DataError if a camera or the task is missing.
    """
    out = dict(batch)
    if "video_features" not in batch:
        views, see = [_views(batch, camera) for camera in config.cameras], encoder()
        flat = np.stack([see.images(view.reshape(-1, *view.shape[2:])) for view in views], axis=1)
        features = see.project(flat) if isinstance(see, Projecting) else flat
        out["video_features"] = torch.from_numpy(features.reshape(*views[0].shape[:2], *features.shape[1:]))
    size, length = out["video_features"].shape[:2]
    if "text_features" not in batch:
        if "task" not in batch:
            raise DataError("a batch needs its instructions: 'task', a sentence or one for each sample")
        tasks = [batch["task"]] * size if isinstance(batch["task"], str) else list(batch["task"])
        if len(tasks) != size:
            raise DataError(f"a batch of {size} needs {size} instructions, got {len(tasks)}")
        out["text_features"] = torch.from_numpy(encoder().text(tasks))
    if "state_features" not in batch and config.state_key in batch:
        state = np.asarray(batch[config.state_key], dtype=np.float32)
        padded = pad_state(state.reshape(-1, state.shape[-1]), config)
        out["state_features"] = torch.from_numpy(padded.reshape(*state.shape[:2], -1))
    out.setdefault("lengths", torch.full((size,), min(length, config.width)))
    return out


def _load(config: SARMConfig) -> FeatureEncoder:
    if config.encoder == "pixels":
        raise DataError(
            "the built-in encoder's second half is in the model's weights: give encoder=model, or video_features and text_features"
        )
    return load_encoder(config.encoder, device=config.device or "cpu")


def _views(batch: Mapping[str, Any], camera: str) -> UInt8[np.ndarray, "B L H W 3"]:
    require_cameras([camera], batch, whose="the batch has")
    images = np.asarray(batch[camera])
    if images.ndim != 5 or 3 not in (images.shape[2], images.shape[-1]):
        raise DataError(f"camera '{camera}' should be (B, L, H, W, 3) or (B, L, 3, H, W), got {images.shape}")
    if images.shape[-1] != 3:
        images = np.moveaxis(images, 2, -1)
    return as_uint8(images, f"camera '{camera}'")
