"""What is trained and how: SARM's presets, and the changes to them that a command or a Python caller asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError
from milepost.datasets import LeRobotDataset
from milepost.models.sarm.checkpoint import read_state_stats, with_state_stats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.lerobot_format import lerobot_architecture
from milepost.models.sarm.train import SARMRecipe
from milepost.models.training.config import TrainConfig
from milepost.models.training.settings import Plan, changed_preset

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
class SARMPlan(Plan):
    """What is trained (`config`), how (`train`), and what is made beside the model."""

    for_lerobot: bool = False
    """A model that LeRobot can load is saved too, in the folder `lerobot` of the model's."""

    def recipe(self, dataset: LeRobotDataset) -> SARMRecipe:
        """Returns how it is trained, with the dataset's own stages where it has them."""
        return SARMRecipe(self.config, dataset.stages, for_lerobot=self.for_lerobot)


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
) -> SARMPlan:
    """Returns a preset with changes: fields of SARMConfig or of TrainConfig by name. A change that is None leaves the preset's value.

    image_key: one camera or several; without one, all cameras of the dataset. DataError if there is no such preset, field or camera, or if
    the dataset has its stages in a form that SARM does not read.
    """
    preset = preset or "paper"
    if preset not in PRESETS:
        raise DataError(f"there is no preset '{preset}'; choose from {', '.join(PRESETS)}")
    if changes.get("window") == "centred":
        changes.setdefault("attention", "lerobot")
    if encoder is not None and not for_lerobot:
        changes = {**(BUILT_IN if encoder == "pixels" else {}), **changes, "encoder": encoder}
    sarm, train = changed_preset(PRESETS[preset], dataset, image_key, changes, unknown="training has no setting {names}")
    _require_stages(dataset, sarm.annotated_heads)
    if for_lerobot:
        # LeRobot normalises states with the statistics of the dataset it labels: the model learns with the same
        sarm = lerobot_architecture(sarm, dataset.fps)
        if sarm.state_key in dataset.meta.features:
            sarm = with_state_stats(sarm, read_state_stats(dataset.root, sarm.state_key, dataset.name))
    return SARMPlan(sarm, train, encoder or "", holdout, keep_features, for_lerobot)


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
