"""What stands before and after a model in LeRobot's way of running one: a function from a batch to a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

BatchStep = Callable[[Mapping[str, Any]], dict[str, Any]]


def to_cpu(batch: Any) -> Any:
    """Returns a reward, or a batch with its tensors, on the CPU."""
    if isinstance(batch, Tensor):
        return batch.cpu()
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in batch.items()}
