"""What is trained and how: the value model's one preset, and the changes to it that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.training.config import TrainConfig
from milepost.models.value.config import ValueConfig
from milepost.models.value.options import ValueTraining

PRESETS = {"small": (ValueConfig(), TrainConfig(steps=800, batch_size=128, lr=1e-3, weight_decay=1e-2))}
"""Minutes on a CPU, on the built-in encoder or any other."""
OF_OTHERS: Mapping[str, Any] = {"annotation_mode": "single_stage", "for_lerobot": False}
"""Settings of other models that a command always gives, with the value that means nothing."""

OPTIONS = (
    *(field.name for field in dataclasses.fields(ValueTraining)), "image_key", "encoder", "n_obs_steps", "gap_s", "steps", "epochs",
    "batch_size", "lr", "seed", "device", "mixed_precision", "validation", "eval_every", "patience", "overwrite",
)  # fmt: skip
"""Settings that are options of `milepost train` too."""


@dataclass(frozen=True)
class Plan:
    """What is trained (`config`), and how (`train`)."""

    config: ValueConfig
    train: TrainConfig
    encoder: str = ""
    """The encoder to load, a folder or a name; "" is the config's."""
    holdout: float = 0.1
    """Proportion of the start scenes that are held out from training and used for the evaluation."""
    keep_features: bool = True
    """The encoder's features of the frames are kept on disk."""


def plan(
    dataset: LeRobotDataset,
    preset: str | None = None,
    *,
    image_key: str | Sequence[str] = (),
    encoder: str | None = None,
    holdout: float = 0.1,
    keep_features: bool = True,
    **changes: Any,
) -> Plan:
    """Returns the preset with changes: fields of ValueConfig or of TrainConfig by name. A change that is None leaves the preset's value.

    image_key: one camera or several; without one, all cameras of the dataset. DataError if there is no such preset, field or camera.
    """
    if preset not in (None, *PRESETS):
        raise DataError(f"a value model has no preset '{preset}'; leave --preset out, and name another encoder with --encoder")
    value, train = PRESETS["small"]
    names = (image_key,) if isinstance(image_key, str) else tuple(image_key)
    cameras = dataset.showing(names).choose_cameras(names, flag="--image-key")
    if changes.get("steps") is not None and changes.get("epochs") is not None:
        raise DataError(f"--steps {changes['steps']} and --epochs {changes['epochs']:g} contradict each other; give one of them")
    changes = {name: each for name, each in changes.items() if each is not None and OF_OTHERS.get(name, name) != each}
    if encoder is not None:
        changes["encoder"] = encoder
    own = {field.name for field in dataclasses.fields(ValueConfig)} - {"device"}
    loop = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := sorted(set(changes) - own - loop):
        raise DataError(
            f"{_flag(unknown[0])} means nothing to a value model; it takes {', '.join(map(_flag, OPTIONS))}; in Python also the "
            f"other fields of ValueConfig and TrainConfig, such as {', '.join(sorted(own - set(OPTIONS))[:3])}"
        )
    value = dataclasses.replace(
        value, image_key=cameras[0], more_image_keys=tuple(cameras[1:]), **{name: each for name, each in changes.items() if name in own}
    )
    loops = {name: each for name, each in changes.items() if name in loop}
    return Plan(value, dataclasses.replace(train, **{"validation": None, **loops}), encoder or "", holdout, keep_features)


def _flag(name: str) -> str:
    """Returns a setting's option on the command line."""
    return f"--{name.replace('_', '-')}"
