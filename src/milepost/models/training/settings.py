"""What is trained and how: a preset of a kind, and the changes to it that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.model_config import ModelConfig
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import Recipe

C = TypeVar("C", bound=ModelConfig)
INNER = {"pretrained_path", "more_follows", "encoder_fingerprint"}
"""Fields that nobody sets."""


@dataclass(frozen=True)
class Plan:
    """What is trained (`config`), and how (`train`)."""

    config: Any
    train: TrainConfig
    encoder: str = ""
    """The encoder to load, a folder or a name; "" is the config's."""
    holdout: float = 0.1
    """Proportion of the start scenes that are held out from training and used for the evaluation."""
    keep_features: bool = True
    """The encoder's features of the frames are kept on disk."""

    def recipe(self, dataset: LeRobotDataset) -> Recipe:
        """Returns how it is trained. A kind says."""
        raise NotImplementedError


def changed_preset(
    preset: tuple[C, TrainConfig],
    dataset: LeRobotDataset,
    image_key: str | Sequence[str],
    changes: Mapping[str, Any],
    *,
    unknown: str,
    options: Sequence[str] = (),
) -> tuple[C, TrainConfig]:
    """Returns a preset for the cameras of a dataset, with changes: fields of its config or of TrainConfig by name, None for the preset's.

    image_key: one camera or several; without one, all cameras of the dataset. unknown: how the message begins that refuses names which are
    no fields, with {names} or {flag} in it. options: those that the command line has too, to be listed by their flags. DataError if there
    is no such field or camera.
    """
    config, train = preset
    names = (image_key,) if isinstance(image_key, str) else tuple(image_key)
    cameras = dataset.showing(names).choose_cameras(names, flag="--image-key")
    if changes.get("steps") is not None and changes.get("epochs") is not None:
        raise DataError(f"--steps {changes['steps']} and --epochs {changes['epochs']:g} contradict each other; give one of them")
    changes = {name: value for name, value in changes.items() if value is not None}
    of_model = {field.name for field in dataclasses.fields(config)} - {"device"}  # type: ignore[arg-type]
    of_loop = {field.name for field in dataclasses.fields(TrainConfig)}  # `device` among them: a model's own is where it runs later
    if others := sorted(set(changes) - of_model - of_loop):
        words, names_left = unknown.format(names=", ".join(map(repr, others)), flag=_flag(others[0])), of_model | of_loop
        if not options:
            raise DataError(f"{words}; the settings are: {', '.join(sorted(names_left - INNER))}")
        more = ", ".join(sorted(of_model - set(options) - INNER)[:3])
        raise DataError(f"{words}; it takes {', '.join(map(_flag, options))}; in Python also its config's other fields, such as {more}")
    own, loop = ({name: value for name, value in changes.items() if name in group} for group in (of_model, of_loop))
    config = dataclasses.replace(config, image_key=cameras[0], more_image_keys=tuple(cameras[1:]), **own)  # type: ignore[type-var]
    return config, dataclasses.replace(train, **{"validation": None, **loop})


def _flag(name: str) -> str:
    """Returns a setting's option on the command line."""
    return f"--{name.replace('_', '-')}"
