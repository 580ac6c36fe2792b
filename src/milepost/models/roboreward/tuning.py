"""How a RoboReward is fine-tuned: the grade of a clip's end, from 1 to 5, by cross-entropy over its five answer tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from milepost.core import DataError, Episode
from milepost.models.roboreward.config import GRADES
from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.tuning import settings
from milepost.models.tuning.targets import grades_allowed
from milepost.models.tuning.tuner import Clip, Labels, Tuner
from milepost.vlm import Engine, answer_hidden, answer_weights


class RoboRewardTuner(Tuner):
    """The grade of a clip follows from the progress at its end. Of a failure whose progress is unknown any grade but 5 is right."""

    MODEL = RoboRewardModel

    def clip(self, model: RoboRewardModel, episode: Episode, frames: Int[np.ndarray, "N"], task: str, labels: Labels) -> Clip | None:
        """Returns all the frames, with the grades that their end may have."""
        allowed = grades_allowed(float(labels.progress[frames[-1]]), labels.outcome)
        return Clip(episode, frames, task, {"allowed": allowed}) if allowed.any() else None

    def weights(self, engine: Engine, *, adapter: bool) -> dict[str, nn.Parameter]:
        """Returns the rows of the output layer of the five grades, unless an adapter is learnt."""
        return {} if adapter else answer_weights(engine, _tokens(engine))

    def hidden(self, model: RoboRewardModel, clip: Clip) -> Float[Tensor, "1 E"]:
        """Returns the hidden state from which the grade is computed."""
        engine = _here(model)
        video = engine.clip(clip.images(model.config.image_key), times_s=clip.times_s, resolution=model.config.resolution)
        return answer_hidden(engine, video, instruction=clip.task, answers=GRADES)[0]

    def loss(self, model: RoboRewardModel, hidden: Float[Tensor, "1 E"], clip: Clip) -> dict[str, Tensor]:
        """Returns minus the logarithm of the probability of the grades that are right, among the five alone."""
        engine = _here(model)
        logits = engine.networks.answer_logits(hidden, _tokens(engine))[0]
        allowed = torch.from_numpy(np.flatnonzero(clip.targets["allowed"])).to(logits.device)
        return {"grade_loss": logits.logsumexp(0) - logits[allowed].logsumexp(0)}


def _here(model: RoboRewardModel) -> Engine:
    """Returns the checkpoint. DataError if it is on a server."""
    if not isinstance(model.engine, Engine):
        raise DataError("a RoboReward on a server cannot be fine-tuned; load the checkpoint here")
    return model.engine


def _tokens(engine: Engine) -> list[int]:
    """Returns the token of each grade."""
    return engine.suffixes(["a task"], GRADES)[0][1]


plan: Any = partial(settings.plan, RoboRewardTuner())
