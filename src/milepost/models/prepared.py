"""A model that is ready for a dataset, and how it is made ready for another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.core import Episode, Prepares, RewardModel, ServesMany, Tick, require_cameras


@dataclass(frozen=True)
class Prepared:
    """A model that is ready for a dataset.

    dataset: the same, with the cameras that the model looks at. arguments: what else its `predict` takes. settings: what else is written
    down of the run. cache: the folder in which it may keep what it computes of the images. questions: an episode -> how many questions a
    server is asked about it, 0 if the model refuses it; None if no server is asked. required: cameras that every dataset must have, and the
    option that names them.
    """

    model: RewardModel
    dataset: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    cache: Path | None = None
    questions: Callable[[Episode], int] | None = None
    required: tuple[Sequence[str], str] = ((), "")

    def begin(self, on_frames: Tick | None = None) -> None:
        """Makes the model ready to keep what it computes. on_frames: is called with the frames that are read."""
        if isinstance(self.model, Prepares):
            self.model.prepare_for(self.dataset, cache=self.cache, on_frames=on_frames)

    @property
    def serves_many(self) -> bool:
        """Returns whether the model can be made ready for another dataset as it is, without being loaded again."""
        return isinstance(self.model, ServesMany) and not self.model.is_for_one_dataset

    def again(self, dataset: Any) -> Prepared:
        """Returns the same model ready for another dataset. DataError if they do not fit."""
        dataset = dataset.showing(self.dataset.cameras)
        cameras, flag = self.required
        require_cameras(cameras, dataset.cameras, hint=f"choose with {flag}")
        if isinstance(self.model, Prepares):
            self.model.prepare_for(dataset)
        return dataclasses.replace(self, dataset=dataset)
