"""What a reward model is, and what it can do beyond that. A model has a capability by having its methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from milepost.core.errors import DataError
from milepost.core.types import Dataset, Episode, Progress, Tick


@runtime_checkable
class RewardModel(Protocol):
    """Episode -> Progress. The only thing a reward model has to do.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> import numpy as np
    >>> class Brightness:
    ...     def predict(self, episode):
    ...         images = episode.cameras["observation.images.top"][np.arange(episode.length)]
    ...         return milepost.Progress(episode.index, images.mean((1, 2, 3), dtype=np.float32) / 255)
    >>> isinstance(Brightness(), milepost.RewardModel)
    True
    >>> len(Brightness().predict(milepost.open_dataset("dots")[0]).main.value)
    33
    """

    def predict(self, episode: Episode) -> Progress: ...


@runtime_checkable
class Saved(Protocol):
    """A model that can be written to a folder, from which `load_model` reads it."""

    def save_pretrained(self, folder: Path | str) -> None: ...


@runtime_checkable
class Identified(Protocol):
    """A model that can say what its curves depend on. Labels of two models with the same identity may go into one file."""

    def identity(self) -> Mapping[str, Any]:
        """Returns plain values that JSON can hold."""
        ...


@runtime_checkable
class HasWeights(Protocol):
    """A model with weights that its identity does not tell apart."""

    def weights_hash(self) -> str:
        """Returns a hash of all weights."""
        ...


@runtime_checkable
class HasSettings(Protocol):
    """A model that knows what else is written down of a run: the same, however it was started."""

    def run_settings(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns name -> plain value of all that the curves depend on beside identity and weights. options: of `predict`, as given."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A model that prepares itself for a dataset: it checks the cameras, computes statistics, loads what it needs."""

    def prepare_for(self, dataset: Dataset, *, cache: Path | None = None, on_frames: Tick | None = None) -> None:
        """Raises DataError if the model cannot be used with this dataset. It may be called again with the same dataset.

        cache: a folder in which the model may store what it computes from images. on_frames: is called as frames are read.
        """
        ...


@runtime_checkable
class ServesMany(Protocol):
    """A model that can be made ready for one dataset after another, without being loaded again."""

    @property
    def is_for_one_dataset(self) -> bool:
        """Returns whether the model took something from the dataset that it is ready for, so that it is no longer the one on disk."""
        ...


@runtime_checkable
class LooksFirst(Protocol):
    """A model that reads images in a call of its own, so that the next episode's are decoded while it computes."""

    def look(self, episode: Episode) -> Any: ...

    def predict(self, episode: Episode, *, seen: Any = None) -> Progress: ...


@dataclass(frozen=True)
class Step:
    """The output of a model for the newest frame of an attempt.

    progress: in [0, 1], NaN while it is unknown. signals: the model's raw numbers by name. fresh: whether the model computed this frame;
    if not, the numbers are those of the last frame that it did compute.
    """

    progress: float
    signals: Mapping[str, float] = field(default_factory=dict)
    fresh: bool = True


@runtime_checkable
class Online(Protocol):
    """A model that follows an attempt frame by frame."""

    def reset(self, *, task: str, fps: float) -> None: ...

    def step(self, frames: Any, state: Any = None) -> Step: ...


@runtime_checkable
class Follows(Protocol):
    """A model that follows many attempts at once. An attempt is an object of the model's own, of bounded size.

    An attempt may have `hold(frames)`: so many frames before the next one never came. Of several calls before one frame the last counts.
    Without it, every frame is needed.

    An attempt may have `snapshot()` and `restore(snapshot)`, which take back one frame: if `advance` fails by anything but a DataError, all
    attempts of that call are restored, and each is tried alone. Without them such a failure ends the attempts, because nobody knows how far
    they went. `snapshot` is called before every frame, so it should be cheap.
    """

    def begin(self, *, task: str, fps: float) -> Any:
        """Returns a new attempt. DataError if the model cannot follow one, or the task does not fit."""
        ...

    def advance(self, attempts: Sequence[Any], frames: Sequence[Any], states: Sequence[Any]) -> Sequence[Step | DataError]:
        """Returns what is said of the next frame of each attempt; a DataError for one whose frame does not fit, which is left as it was."""
        ...


@runtime_checkable
class Judges(Protocol):
    """A model that predicts success if the final score of an attempt is above its threshold; minus infinity if it has no threshold."""

    @property
    def success_threshold(self) -> float: ...


@runtime_checkable
class Closes(Protocol):
    """A model that holds something open, such as connections to a server."""

    def close(self) -> Sequence[str]:
        """Closes the model. Returns the lines that a user should read."""
        ...
