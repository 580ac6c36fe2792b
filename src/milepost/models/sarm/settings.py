"""What is trained and how: SARM's presets, and the changes to them that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.sarm.checkpoint import read_state_stats, with_state_stats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.lerobot_format import lerobot_architecture
from milepost.models.training.config import TrainConfig

BUILT_IN = {"image_dim": 64, "text_dim": 32}
"""Widths of the built-in encoder. It has no fixed widths; these were enough in docs/sarm_recipe.md's runs."""

PRESETS = {
    "paper": (SARMConfig(), TrainConfig()),
    "small": (
        SARMConfig(
            hidden_dim=96,
            n_obs_steps=4,
            num_layers=2,
            num_heads=4,
            rewind_probability=0.0,
            max_rewind_steps=0,
            dropout=0.0,
            feature_noise=0.3,
            unfinished="zero",
            encoder="pixels",
            **BUILT_IN,  # type: ignore[arg-type]
        ),
        TrainConfig(steps=800, batch_size=64, lr=1e-3, weight_decay=1e-2),
    ),
}


@dataclass(frozen=True)
class Plan:
    """What is trained (`config`), how (`train`), and what is made beside the model."""

    config: SARMConfig
    train: TrainConfig
    encoder: str = ""
    """The encoder to load, a folder or a name; "" is the config's."""
    holdout: float = 0.1
    """Proportion of the start scenes that are held out from training and used for the evaluation."""
    keep_features: bool = True
    """The encoder's features of the frames are kept on disk."""
    for_lerobot: bool = False
    """A model that LeRobot can load is saved too, in the folder `lerobot` of the model's."""


def plan(
    dataset: LeRobotDataset,
    preset: str | None = None,
    *,
    image_key: str | Sequence[str] = (),
    encoder: str | None = None,
    holdout: float = 0.1,
    keep_features: bool = True,
    for_lerobot: bool = False,
    **changes: Any,
) -> Plan:
    """Returns a preset with changes: fields of SARMConfig or of TrainConfig by name. A change that is None leaves the preset's value.

    image_key: one camera or several; without one, all cameras of the dataset. DataError if there is no such preset, field or camera, or if
    the dataset has its stages in a form that SARM does not read.
    """
    preset = preset or "paper"
    if preset not in PRESETS:
        raise DataError(f"there is no preset '{preset}'; choose from {', '.join(PRESETS)}")
    sarm, train = PRESETS[preset]
    names = (image_key,) if isinstance(image_key, str) else tuple(image_key)
    cameras = dataset.showing(names).choose_cameras(names, flag="--image-key")
    if changes.get("steps") is not None and changes.get("epochs") is not None:
        raise DataError(f"steps {changes['steps']} and epochs {changes['epochs']:g} contradict each other; give one of them")
    if changes.get("window") == "centred":
        changes.setdefault("attention", "lerobot")
    if encoder is not None and not for_lerobot:
        changes = {**(BUILT_IN if encoder == "pixels" else {}), **changes, "encoder": encoder}
    ours, loops = _parted({name: value for name, value in changes.items() if value is not None})
    sarm = dataclasses.replace(sarm, image_key=cameras[0], more_image_keys=cameras[1:], **ours)
    _require_stages(dataset, sarm.annotated_heads)
    if for_lerobot:
        # LeRobot normalises states with the statistics of the dataset it labels: the model learns with the same
        sarm = lerobot_architecture(sarm, dataset.fps)
        if sarm.state_key in dataset.meta.features:
            sarm = with_state_stats(sarm, read_state_stats(dataset.root, sarm.state_key, dataset.name))
    train = dataclasses.replace(train, **{"validation": None, **loops})
    return Plan(sarm, train, encoder or "", holdout, keep_features, for_lerobot)


def _parted(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (the changes of SARMConfig, those of TrainConfig). DataError if a name is in neither."""
    groups = [{field.name for field in dataclasses.fields(kind)} for kind in (SARMConfig, TrainConfig)]
    device = {"device": changes["device"]} if "device" in changes else {}  # of the training; a model's own is where it runs later
    if unknown := sorted(set(changes) - groups[0] - groups[1]):
        names = sorted((groups[0] | groups[1]) - {"pretrained_path", "more_follows", "encoder_fingerprint"})
        raise DataError(f"training has no setting {', '.join(map(repr, unknown))}; the settings are: {', '.join(names)}")
    ours = {name: value for name, value in changes.items() if name in groups[0] and name != "device"}
    return ours, {name: value for name, value in changes.items() if name in groups[1]} | device


def _require_stages(dataset: LeRobotDataset, heads: Sequence[str]) -> None:
    """Raises DataError if the dataset's stages are only in a form that SARM does not read; the message says how to convert them."""
    records = [dataset.meta.episodes[number] for number in dataset.episode_indices]
    if (
        heads
        and "subtask_index" in dataset.meta.features
        and not any(record.readable_segments.get(head) for record in records for head in heads)
    ):
        raise DataError(
            f"{dataset.name} has its stages as subtask_index, one for every frame, and no {' or '.join(heads)} annotation; bring them over "
            f"first: milepost annotate DATASET --from-subtask-index {heads[0]}"
        )
