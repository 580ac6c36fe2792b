"""The parts of SARM's loss: what is known of a batch's labels, and the stage that the within-stage network is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from milepost.models.training.distributed import ProcessGroup

Labels = tuple[Tensor, Tensor, Tensor]
"""stage (B, L), tau (B, L), and which of the B * L taus are known."""


def labels_of(batch: Mapping[str, Tensor], head: str) -> Labels:
    """Returns the labels of a head."""
    stage, tau = batch[f"{head}_stage"], batch[f"{head}_tau"]
    return stage, tau, (~torch.isnan(tau)).flatten().nonzero().squeeze(1)


def counts_of(labels: Sequence[Labels], process_group: ProcessGroup, device: torch.device) -> Tensor | list[list[int]]:
    """Returns how many stages and taus of each head are known, over all processes; at least 1."""
    own = [[int((stage >= 0).sum()), len(places)] for stage, _, places in labels]
    if process_group.world_size == 1:
        return [[max(1, count) for count in pair] for pair in own]
    return process_group.all_reduce(torch.tensor(own, dtype=torch.float32, device=device)).clamp(min=1)


def teacher_forced_stage(
    logits: Float[Tensor, "B L K"], stage: Int[Tensor, "B L"], draw: Float[Tensor, "D 1"], ratio: float
) -> Float[Tensor, "B L K"]:
    """Returns, one-hot, the true stage where `draw` is below `ratio`, and the predicted one elsewhere and where it is unknown."""
    use_truth = (draw.to(stage.device) < ratio) & (stage >= 0)
    return F.one_hot(torch.where(use_truth, stage, logits.argmax(-1)), logits.shape[-1]).float()
