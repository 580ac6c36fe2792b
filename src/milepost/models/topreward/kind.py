"""TOPReward as one of the kinds of reward models, and its steps before and after a batch."""

from __future__ import annotations

from functools import partial
from typing import Any

from milepost.models.processing import BatchStep, to_cpu
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.topreward.options import TOPRewardOptions
from milepost.models.topreward.processor import encode_batch
from milepost.models.zero_shot.kind import kind_of_class


def processors(config: TOPRewardConfig, **_: Any) -> tuple[BatchStep, BatchStep]:
    """Returns (before, after) of `compute_reward`; no statistics of a dataset are needed."""
    return partial(encode_batch, config=config), to_cpu


MODEL = kind_of_class(TOPRewardModel, TOPRewardOptions, processors=processors)
