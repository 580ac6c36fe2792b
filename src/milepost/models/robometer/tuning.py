"""How a Robometer is fine-tuned: its progress and success heads on the frames of one clip, as it is asked about them later."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from milepost.core import DataError, Episode
from milepost.models.robometer.config import QUESTION
from milepost.models.robometer.model import RobometerModel, evenly
from milepost.models.tuning import settings
from milepost.models.tuning.tuner import Clip, Labels, Tuner, mean_known
from milepost.models.value.targets import two_hot
from milepost.vlm import FrameEngine, head_weights, marks_hidden


class RobometerTuner(Tuner):
    """The progress head learns the two bins around each frame's progress, the success head whether it has succeeded."""

    MODEL = RobometerModel

    def clip(self, model: RobometerModel, episode: Episode, frames: Int[np.ndarray, "N"], task: str, labels: Labels) -> Clip | None:
        """Returns at most `max_frames` of the frames, evenly spaced, with progress and success of each."""
        places = frames[evenly(len(frames), model.config.max_frames)]
        progress, success = labels.progress[places], labels.success[places]
        if np.isnan(progress).all() and np.isnan(success).all():
            return None
        return Clip(episode, places, task, {"progress": progress, "success": success})

    def weights(self, engine: FrameEngine, *, adapter: bool) -> dict[str, nn.Parameter]:
        """Returns the weights of both heads."""
        return head_weights(engine)

    def hidden(self, model: RobometerModel, clip: Clip) -> Float[Tensor, "N E"]:
        """Returns the hidden states at the mark behind each frame."""
        text = QUESTION.format(instruction=clip.task)
        return marks_hidden(here(model), clip.images(model.config.image_key), text=text, resolution=model.config.resolution)

    def loss(self, model: RobometerModel, hidden: Float[Tensor, "N E"], clip: Clip) -> dict[str, Tensor]:
        """Returns the cross-entropies of progress and of success, each over the frames of which it is known."""
        heads, progress, success = here(model).heads, clip.targets["progress"], clip.targets["success"]
        logits = heads["progress"](hidden.float())
        target = torch.from_numpy(np.nan_to_num(progress)).to(logits.device)
        by_frame = cross_entropy(logits, two_hot(target - 1.0, logits.shape[1]), reduction="none")
        done = torch.from_numpy(np.nan_to_num(success)).to(logits.device)
        succeeded = binary_cross_entropy_with_logits(heads["success"](hidden.float())[:, 0], done, reduction="none")
        return {"progress_loss": mean_known(by_frame, ~np.isnan(progress)), "success_loss": mean_known(succeeded, ~np.isnan(success))}


def here(model: RobometerModel) -> FrameEngine:
    """Returns the checkpoint loaded here. DataError if it is on a server."""
    if not isinstance(model.engine, FrameEngine):
        raise DataError("a Robometer on a server cannot be fine-tuned: load the checkpoint here, without base_url")
    return model.engine


plan: Any = partial(settings.plan, RobometerTuner())
