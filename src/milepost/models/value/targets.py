"""What a value model learns: the return of each frame in [-1, 0], as a probability of each bin. Pure functions.

The return is minus the frames that are left, plus the penalty C of a failure, over a scale that belongs to the task, and -1 at least.
Sources: RECAP (pi*0.6, arXiv 2511.14759) for the 201 bins and the cross-entropy; HL-Gauss is arXiv 2403.03950.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

SUCCESSES_DOWN_TO = -0.8
"""The return at the first frame of a task's longest success, where `normalise` is "task". A failure has -1."""
BOUNDARY = -0.9
"""The return that divides successes from failures there: half-way, far from both in bins, so that blurred targets do not cross it."""


def frame_returns(length: int, has_failed: bool, scale: float, failure_frames: float) -> Float[np.ndarray, "T"]:
    """Returns max(-1, -(frames left + C) / scale) of each frame. failure_frames: C, which only a failure has.

    >>> frame_returns(3, False, 10.0, 50.0).tolist()
    [-0.2, -0.1, -0.0]
    >>> frame_returns(3, True, 52.0, 50.0).tolist()[-1]  # -50 / 52
    -0.9615384615384616
    """
    left = np.arange(length)[::-1] + (failure_frames if has_failed else 0.0)
    return np.maximum(-left / scale, -1.0)


def bin_centres(bins: int) -> Float[Tensor, "K"]:
    """Returns the returns that the bins stand for: evenly from -1 to 0, both included."""
    return torch.linspace(-1.0, 0.0, bins)


def two_hot(returns: Float[Tensor, "N"], bins: int) -> Float[Tensor, "N K"]:
    """Returns probabilities of the two bins around each return, whose mean is that return. Returns outside [-1, 0] are clipped.

    >>> two_hot(torch.tensor([-0.875]), 5).tolist()
    [[0.5, 0.5, 0.0, 0.0, 0.0]]
    """
    place = (returns.clamp(-1.0, 0.0) + 1.0) * (bins - 1)
    low = place.floor().long().clamp(max=bins - 2)
    upper = (place - low).clamp(0.0, 1.0)
    target = torch.zeros(len(returns), bins, dtype=returns.dtype, device=returns.device)
    target.scatter_(1, low[:, None], (1.0 - upper)[:, None])
    return target.scatter_add_(1, low[:, None] + 1, upper[:, None])


def hl_gauss(returns: Float[Tensor, "N"], bins: int, sigma_bins: float) -> Float[Tensor, "N K"]:
    """Returns a normal distribution around each return, cut off at the ends. sigma_bins: its standard deviation in bins.

    Exactly -1 and exactly 0 are one bin alone: cut off on one side, they would be taught as something in between.
    """
    returns = returns.clamp(-1.0, 0.0)
    width = 1.0 / (bins - 1)
    edges = torch.linspace(-1.0 - width / 2, width / 2, bins + 1, dtype=returns.dtype, device=returns.device)
    below = torch.special.ndtr((edges[None, :] - returns[:, None]) / (sigma_bins * width))
    target = below.diff(dim=1)
    is_end = ((returns == -1.0) | (returns == 0.0))[:, None]
    return torch.where(is_end, two_hot(returns, bins), target / target.sum(dim=1, keepdim=True))


def above_boundary(bins: int) -> Bool[Tensor, "K"]:
    """Returns which bins are those of successes, where `normalise` is "task"."""
    return bin_centres(bins) > BOUNDARY
