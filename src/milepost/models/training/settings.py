"""What is trained and how: a preset of a kind, and the changes to it that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from milepost.core import DataError, Episode, Tick
from milepost.datasets import LeRobotDataset
from milepost.encoders import FeatureCache, cache_folder, load_encoder
from milepost.models.model_config import ModelConfig
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import Recipe, TrainResult, learn

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
        """Returns how it is trained. A kind that learns from an encoder's features says."""
        raise NotImplementedError

    def opened(self, dataset: LeRobotDataset, train: TrainConfig) -> Callable[..., TrainResult]:
        """Returns what trains: (episodes, folder, on_stage) -> result. What is trained on, such as an encoder, is loaded already."""
        recipe, config = self.recipe(dataset), self.config
        encoder = load_encoder(self.encoder or config.encoder, device=train.device, text_width=config.text_dim)

        def run(episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]) -> TrainResult:
            kept_in = cache_folder() if self.keep_features else None
            features = FeatureCache(
                kept_in, dataset.fingerprint, encoder=encoder, half=kept_in is not None, on_frames=on_stage("read and encode frames")
            )
            return learn(recipe, episodes, train, folder=folder, holdout=self.holdout, features=features, on_stage=on_stage)

        return run

    def concluded(
        self, result: TrainResult, dataset: LeRobotDataset, episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]
    ) -> TrainResult:
        """Returns the result with what else is fitted once the weights are learnt."""
        return self.recipe(dataset).concluded(result, episodes, folder, on_stage)

    def save_card(self, folder: Path, result: TrainResult, dataset: LeRobotDataset) -> None:
        """Writes the card, and what else belongs beside the weights."""
        self.recipe(dataset).save_card(folder, result, dataset.name, fingerprint=dataset.fingerprint)


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
    of_model = {field.name for field in dataclasses.fields(config)} - {"device"}  # type: ignore[arg-type]
    of_loop = {field.name for field in dataclasses.fields(TrainConfig)}  # `device` among them: a model's own is where it runs later
    own, loop = divided_changes((of_model, of_loop), changes, unknown=unknown, options=options)
    config = dataclasses.replace(config, image_key=cameras[0], more_image_keys=tuple(cameras[1:]), **own)  # type: ignore[type-var]
    return config, dataclasses.replace(train, **{"validation": None, **loop})


def divided_changes(
    groups: Sequence[set[str]], changes: Mapping[str, Any], *, unknown: str, options: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Returns the changes of each group of settings, without those that are None. unknown, options: as of `changed_preset`.

    DataError if a change is in no group, or both steps and epochs are given.
    """
    if changes.get("steps") is not None and changes.get("epochs") is not None:
        raise DataError(f"--steps {changes['steps']} and --epochs {changes['epochs']:g} contradict each other; give one of them")
    changes = {name: value for name, value in changes.items() if value is not None}
    names_left = set().union(*groups)
    if others := sorted(set(changes) - names_left):
        words = unknown.format(names=", ".join(map(repr, others)), flag=_flag(others[0]))
        if not options:
            raise DataError(f"{words}; the settings are: {', '.join(sorted(names_left - INNER))}")
        more = ", ".join(sorted(groups[0] - set(options) - INNER)[:3])
        raise DataError(f"{words}; it takes {', '.join(map(_flag, options))}; in Python also its config's other fields, such as {more}")
    return [{name: value for name, value in changes.items() if name in group} for group in groups]


def _flag(name: str) -> str:
    """Returns a setting's option on the command line."""
    return f"--{name.replace('_', '-')}"
