"""The config.json that LeRobot writes for a model of the plugin (plugins/lerobot) -> ours. The weights beside it are ours as they are.

LeRobot names such a model by the type of its own registry, and adds fields that say where it runs and is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TYPES = {"milepost_sarm": "sarm", "milepost_topreward": "topreward"}
"""LeRobot's name of a model of the plugin -> the name of its kind here."""
LEROBOTS = (
    "input_features", "output_features", "device", "pretrained_path", "pretrained_revision", "push_to_hub", "repo_id", "license", "tags",
    "private",
)  # fmt: skip
"""Fields of every config of LeRobot's reward models, 0.6.1. They change no number."""
TRAINING = ("keep_features", "optimizer_lr", "optimizer_weight_decay", "optimizer_grad_clip_norm", "trained_steps")
"""Fields of the plugin's own that say how a model is trained."""


def is_plugin(values: Mapping[str, Any]) -> bool:
    """Returns whether this is the config of a model of the plugin."""
    return values.get("type") in TYPES


def own_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config in the form that the kind itself saves. Any other config stays as it is."""
    if not is_plugin(values):
        return dict(values)
    fields = {name: value for name, value in values.items() if name not in (*LEROBOTS, *TRAINING)}
    return {**fields, "type": TYPES[values["type"]]}
