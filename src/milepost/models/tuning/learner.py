"""The part of a VLM that is fine-tuned, as the training loop takes it: its few weights, and the loss of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from milepost.core import Tick
from milepost.models.training.distributed import ProcessGroup
from milepost.models.tuning.tuner import Clip, Tuner


class TuningLearner(nn.Module):
    """A `Learner` whose parameters are those that are learnt; the rest of the VLM is no part of it and of no checkpoint.

    clips: what is learnt from; a batch has their numbers, so that images are decoded when they are needed. adapter: whether hidden states
    depend on what is learnt. If not, they are computed once.
    """

    def __init__(self, tuner: Tuner, model: Any, clips: Sequence[Clip], weights: Mapping[str, nn.Parameter], *, adapter: bool) -> None:
        super().__init__()
        self.tuner, self.model, self.clips, self.adapter = tuner, model, clips, adapter
        self.computed: dict[int, Tensor] = {}
        for name, weight in weights.items():
            self.register_parameter(name.replace(".", "/"), weight)

    def prepare(self, clips: Sequence[Clip], tick: Tick) -> None:
        """Computes the hidden states of these clips, unless they would change in training."""
        if self.adapter:
            return
        for done, clip in enumerate(clips):
            with torch.no_grad():
                self.computed[id(clip)] = self.tuner.hidden(self.model, clip).float().cpu()
            tick(done + 1, len(clips))

    def terms(self, clip: Clip) -> dict[str, Tensor]:
        """Returns the terms of a clip's loss."""
        computed = self.computed.get(id(clip))
        hidden = self.tuner.hidden(self.model, clip) if computed is None else computed.to(next(self.parameters()).device)
        return self.tuner.loss(self.model, hidden, clip)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, process_group: ProcessGroup) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns this process's part of the mean over the clips of all processes, and of each term."""
        rows = [self.terms(self.clips[number]) for number in batch["clip"].tolist()]
        total = len(rows) * process_group.world_size
        parts = {name: torch.stack([row[name] for row in rows]).sum() / total for name in rows[0]}
        loss = torch.stack([*parts.values()]).sum()
        return loss, {"loss": loss, **parts}

    @torch.no_grad()
    def mean_loss(self, clips: Sequence[Clip], tick: Tick | None = None) -> float:
        """Returns the mean loss of these clips as the weights are now."""
        losses = []
        for done, clip in enumerate(clips):
            losses.append(float(torch.stack([*self.terms(clip).values()]).sum()))
            if tick is not None:
                tick(done + 1, len(clips))
        return sum(losses) / len(losses)

    def validation_scores(self, clips: Sequence[Clip]) -> dict[str, float]:
        """Returns the mean loss of the validation set, which chooses the checkpoint."""
        return {"validation_loss": self.mean_loss(clips)}

    def save_pretrained(self, folder: Path) -> None:
        """Writes the fine-tuned model, without the checkpoint that it was made from."""
        self.model.save_pretrained(folder)
