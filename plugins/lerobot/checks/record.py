"""`lerobot-train` in this process, with every step's loss and rows written down:

    python record.py RECORD OPTIONS...

Writes RECORD.0.json, and the weights before the first step as RECORD.safetensors; in several processes, RECORD.RANK.json each.
SmolVLA's noise is made a function of a frame's row, so that it is the same in whatever batch the frame comes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.scripts import lerobot_train
from safetensors.torch import save_file


def steady(index: torch.Tensor, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns noise (B, *shape) and times (B,) that depend on nothing but each frame's row."""
    noise, times = [], []
    for row in index.flatten().tolist():
        generator = torch.Generator().manual_seed(int(row))
        noise.append(torch.randn(shape, generator=generator))
        times.append(torch.rand((), generator=generator))
    return torch.stack(noise), torch.stack(times)


def make_smolvla_steady() -> None:
    """Replaces SmolVLA's forward by one whose noise is steady."""
    forward = SmolVLAPolicy.forward

    def steadied(self: SmolVLAPolicy, batch: dict[str, Any], noise: Any = None, time: Any = None, reduction: str = "mean") -> Any:
        noise, time = steady(batch["index"], (self.config.chunk_size, self.config.max_action_dim))
        return forward(self, batch, noise, time, reduction)

    SmolVLAPolicy.forward = steadied


def main(record: Path, options: list[str]) -> None:
    """Trains, and writes what happened."""
    rank, steps = os.environ.get("RANK", "0"), []
    step = lerobot_train.update_policy

    def watched(tracker: Any, policy: Any, batch: dict[str, Any], *rest: Any, **named: Any) -> Any:
        if not steps and rank == "0":
            inner = getattr(policy, "module", policy)
            weights = inner.state_dict().items()
            save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights}, f"{record}.safetensors")
        out = step(tracker, policy, batch, *rest, **named)
        steps.append({"loss": tracker.loss.val, "index": batch["index"].flatten().tolist()})
        return out

    lerobot_train.update_policy = watched
    make_smolvla_steady()
    sys.argv = ["lerobot-train", *options]
    lerobot_train.main()
    Path(f"{record}.{rank}.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
