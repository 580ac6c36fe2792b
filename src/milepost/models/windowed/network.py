"""The ensemble: M multilayer perceptrons that run as one, each from its own first weights. It reads nothing and knows no episode."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """M linear layers side by side, (M, N, inputs) -> (M, N, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(1, inputs))
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Float[Tensor, "M N I"]) -> Float[Tensor, "M N O"]:
        """Returns each member's layer applied to its inputs."""
        return inputs @ self.weight + self.bias


class Ensemble(nn.Module):
    """Two hidden layers and the logits of K bins (of one for a yes or no), for each of M members, from inputs that all share."""

    def __init__(self, members: int, inputs: int, hidden: int, bins: int, dropout: float) -> None:
        super().__init__()
        self.members, self.dropout = members, dropout
        self.first = EnsembleLinear(members, inputs, hidden)
        self.second = EnsembleLinear(members, hidden, hidden)
        self.last = EnsembleLinear(members, hidden, bins)

    def forward(self, inputs: Float[Tensor, "N I"]) -> Float[Tensor, "M N K"]:
        """Returns the logits of every member."""
        hidden = self.first(inputs.expand(self.members, -1, -1))
        hidden = F.dropout(F.gelu(F.layer_norm(hidden, hidden.shape[-1:])), self.dropout, self.training)
        hidden = hidden + F.dropout(F.gelu(self.second(hidden)), self.dropout, self.training)
        return self.last(F.layer_norm(hidden, hidden.shape[-1:])).float()
