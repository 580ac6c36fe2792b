"""Watches a learner for rewards without deeds: attempts whose progress is high although nothing that it should come from was there.

Three wires, each a cheap control of the audit (docs/audit.md) that needs no truth:

- "still": most of the progress came in steps in which neither image nor state changed.
- "frozen": the same attempt, shown its first frame again and again, makes much of the same progress. So it is time that is rewarded.
- "unfamiliar": most frames lie outside what the demonstrations look like. So the model is asked about what it never learnt.

A wire is a reason to look and no proof: the list says which attempts to watch.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from milepost.core import DataError, as_uint8

_log = logging.getLogger(__name__)
GRID = 8
"""An image is compared by the means of so many by so many cells, which camera noise hardly changes."""
WIRES = ("still", "frozen", "unfamiliar")


@dataclass(frozen=True)
class TripwireConfig:
    """When a wire trips. ValueError for numbers outside their range.

    high: progress from which an attempt counts. fraction: of the rise, or of the frames, from which a wire trips. frozen_steps: how often
    the model is asked about the first frame of a high attempt, spread over its frames, once it is over; 0 for never. image_change: the
    largest change of a cell's mean, of 255, in an image that stands still. state_change: of a state's range so far, in one that stands
    still. listed: attempts that are kept for the list.

    >>> milepost.TripwireConfig().frozen_steps
    16
    """

    high: float = 0.5
    fraction: float = 0.5
    frozen_steps: int = 16
    image_change: float = 1.0
    state_change: float = 0.005
    listed: int = 1000

    def __post_init__(self) -> None:
        if not (0 < self.high <= 1 and 0 < self.fraction <= 1):
            raise ValueError(f"high and fraction must be above 0 and at most 1, got {self.high:g} and {self.fraction:g}")
        if self.frozen_steps < 0 or self.image_change < 0 or self.state_change < 0 or self.listed < 1:
            raise ValueError("frozen_steps, image_change and state_change must be 0 or more, listed at least 1")


@dataclass(frozen=True, eq=False)
class FirstFrame:
    """The first frame of an attempt, as the model saw it."""

    images: Mapping[str, Any]
    state: Float[np.ndarray, "S"] | None


AskFrozen = Callable[[FirstFrame, Sequence[int]], float]
"""(first frame, frame numbers) -> the highest progress if that frame is shown under these numbers; NaN if it could not be asked."""


@dataclass(frozen=True)
class TrippedAttempt:
    """An attempt to look at. number: counted from 0 over all environments. place: its environment. peak: its highest progress."""

    number: int
    place: int
    task: str
    frames: int
    peak: float
    wires: tuple[str, ...]


def cells_of(images: Mapping[str, Any]) -> Float[np.ndarray, "N"]:
    """Returns the means of each image's cells, of 255, one camera after the other, by name. Images smaller than the grid count by pixel."""
    return np.concatenate([each.reshape(-1) for each in _cells_of_cameras(images)])


def _cells_of_cameras(images: Mapping[str, Any]) -> list[Float[np.ndarray, "_ _ _"]]:
    return [_cells(_image(images[camera], camera)) for camera in sorted(images)]


def _image(image: Any, camera: str) -> Shaped[np.ndarray, "..."]:
    if isinstance(image, bytes) or np.ndim(image) != 3:
        raise DataError(f"tripwires compare images as arrays (H, W, 3) or (3, H, W), and that of camera '{camera}' is none")
    return as_uint8(np.asarray(image), f"the image of camera '{camera}'")


def _copy_of(image: Any) -> Any:
    """Returns a copy of an image, which its environment may draw over; bytes stay as they are."""
    return image if isinstance(image, bytes) else np.array(image)


def _cells(image: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "_ _ _"]:
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] != 3 and image.shape[0] == 3:
        image = np.moveaxis(image, 0, -1)
    rows = [np.linspace(0, size, min(GRID, size), endpoint=False).astype(int) for size in image.shape[:2]]
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), rows[0], axis=0), rows[1], axis=1)
    heights = np.diff([*rows[0], image.shape[0]])[:, None, None]
    widths = np.diff([*rows[1], image.shape[1]])[None, :, None]
    return np.asarray(sums / (heights * widths), dtype=np.float32)


class Familiar:
    """What the frames of demonstrations look like: their cells and states, by principal components.

    A frame is unfamiliar if it lies further from them than nearly all frames of demonstrations that were not used to find the components.

    >>> familiar = milepost.Familiar.of_dataset(milepost.testing.write_example("what is familiar"))
    >>> familiar.limit > 0
    True
    """

    def __init__(self, rows: Sequence[Float[np.ndarray, "_ N"]], components: int = 16) -> None:
        """Fits to the rows of episodes. DataError unless there are two episodes, of rows of one width."""
        if len(rows) < 2 or len({each.shape[1] for each in rows}) != 1:
            raise DataError("what is familiar is learnt from at least two episodes, with the same cameras, sizes and state")
        fitted, held_out = np.concatenate(rows[::2]), np.concatenate(rows[1::2])
        self._mean, self._scale = fitted.mean(axis=0), fitted.std(axis=0) + 1.0
        _, values, axes = np.linalg.svd((fitted - self._mean) / self._scale, full_matrices=False)
        self._axes = axes[: min(components, len(values))]
        self._spread = np.maximum(values[: len(self._axes)] / math.sqrt(len(fitted)), 1e-6)
        rest = self._parts(fitted)[1]
        self._rest = max(float(np.sqrt(np.mean(rest**2))), 1e-6)
        self.limit = 1.5 * float(np.quantile(self.distances(held_out), 0.999))

    @classmethod
    def of_dataset(cls, dataset: Any, *, stride: int = 3) -> Familiar:
        """Fits to every third frame, or as `stride` says, of a dataset's episodes, with all of its cameras and its states."""
        rows = []
        for number in dataset.episode_indices:
            episode = dataset.episode(number)
            at = np.arange(0, episode.length, stride)
            images = {camera: episode.camera(camera)[at] for camera in episode.cameras}
            frames = [{camera: each[place] for camera, each in images.items()} for place in range(len(at))]
            states = [None] * len(at) if episode.state is None else episode.state[at]
            rows.append(np.stack([row_of(frame, state) for frame, state in zip(frames, states, strict=True)]))
        return cls(rows)

    def distances(self, rows: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T"]:
        """Returns how far frames lie from the demonstrations; about 1 for one of them. DataError for rows of another width."""
        if rows.shape[1] != len(self._mean):
            raise DataError(
                f"a frame has {rows.shape[1]} numbers here, the demonstrations had {len(self._mean)}: other cameras, sizes or state"
            )
        inside, rest = self._parts(rows)
        inside = np.sqrt(np.mean((inside / self._spread) ** 2, axis=1))
        return np.asarray(np.maximum(inside, rest / self._rest), dtype=np.float64)

    def _parts(self, rows: Float[np.ndarray, "T N"]) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "T"]]:
        """Returns the components of rows, and the length of what they leave."""
        centred = (rows - self._mean) / self._scale
        inside = centred @ self._axes.T
        return inside, np.linalg.norm(centred - inside @ self._axes, axis=1)


def row_of(images: Mapping[str, Any], state: Any) -> Float[np.ndarray, "N"]:
    """Returns what is compared of a frame: its cells, and its state in the units of the dataset times 255."""
    cells = cells_of(images)
    return cells if state is None else np.concatenate([cells, 255 * np.asarray(state, dtype=np.float32).reshape(-1)])


class _Watched:
    """One attempt: what its progress came from."""

    def __init__(self, number: int, place: int, task: str) -> None:
        self.number, self.place, self.task = number, place, task
        self.frames = self.unfamiliar = 0
        self.first = self.last = math.nan
        self.peak, self.frozen_peak = -math.inf, math.nan
        self.first_frame: FirstFrame | None = None
        self.rise = self.still_rise = 0.0
        self._cells: Any = None
        self._state: Any = None
        self._lowest: Any = None
        self._highest: Any = None

    def add(self, images: Mapping[str, Any], state: Any, progress: float, config: TripwireConfig, familiar: Familiar | None) -> None:
        """Adds a frame."""
        # colours together: a cell's noise is then smaller, and what moves is still seen
        cells = np.concatenate([each.mean(axis=2).reshape(-1) for each in _cells_of_cameras(images)])
        state = None if state is None else np.asarray(state, dtype=np.float32).reshape(-1)
        is_still = self._stands(cells, state, config)
        self.frames += 1
        if self.first_frame is None:
            self.first_frame = FirstFrame({camera: _copy_of(image) for camera, image in images.items()}, state)
        if familiar is not None:
            self.unfamiliar += bool(familiar.distances(row_of(images, state)[None])[0] > familiar.limit)
        self._cells, self._state = cells, state
        if math.isnan(progress):
            return
        if math.isnan(self.first):
            self.first = progress
        rise = progress - self.peak if self.peak > -math.inf else 0.0
        if rise > 0:  # beyond its best value: a curve that goes up and down in place gains nothing
            self.rise += rise
            self.still_rise += rise if is_still else 0.0
        self.peak, self.last = max(self.peak, progress), progress

    def try_frozen(self, ask: AskFrozen, steps: int) -> None:
        """Asks what the model makes of the first frame alone."""
        if self.first_frame is not None:
            self.frozen_peak = ask(self.first_frame, sorted({round(each) for each in np.linspace(0, self.frames - 1, steps)}))

    def wires(self, config: TripwireConfig) -> tuple[str, ...]:
        """Returns the wires that this attempt trips; none while its progress is not high."""
        if self.peak < config.high:
            return ()
        rise = max(self.peak - self.first, 1e-9)
        is_tripped = {
            "still": self.rise > 0 and self.still_rise >= config.fraction * self.rise,
            "frozen": self.frozen_peak - self.first >= config.fraction * rise and self.peak - self.first > 0,
            "unfamiliar": self.unfamiliar >= config.fraction * self.frames,
        }
        return tuple(name for name in WIRES if is_tripped[name])

    def _stands(self, cells: Any, state: Any, config: TripwireConfig) -> bool:
        """Returns whether neither image nor state changed since the last frame."""
        if state is not None:
            self._lowest = state if self._lowest is None else np.minimum(self._lowest, state)
            self._highest = state if self._highest is None else np.maximum(self._highest, state)
        if self._cells is None or self._cells.shape != cells.shape:
            return False
        if np.abs(cells - self._cells).max() > config.image_change:
            return False
        return state is None or bool((np.abs(state - self._state) <= config.state_change * (self._highest - self._lowest)).all())


class Tripwires:
    """Watches the attempts of a learner, of any number of environments. The wrappers do it with `RewardConfig(tripwires=...)`.

    familiar: what demonstrations look like, None to leave that wire out. In a loop of your own, call `begin`, `add` with each frame, `end`.

    >>> import numpy as np
    >>> wires = milepost.Tripwires()
    >>> wires.begin(0, "visit")
    >>> [wires.add(0, {"top": np.zeros((8, 8, 3), np.uint8)}, None, progress) for progress in (0.0, 0.4, 0.8)]
    [(), (), ('still',)]
    >>> wires.end(0)
    >>> wires.counts()["high"], wires.attempts()[0].wires
    (1, ('still',))
    """

    def __init__(self, config: TripwireConfig | None = None, familiar: Familiar | None = None) -> None:
        self.config, self.familiar = config or TripwireConfig(), familiar
        self._watched: dict[int, _Watched] = {}
        self._tripped: deque[TrippedAttempt] = deque(maxlen=self.config.listed)
        self._counts = Counter[str]()

    def begin(self, place: int, task: str) -> None:
        """Begins an attempt of an environment; the one before ends."""
        self.end(place)
        self._watched[place] = _Watched(self._counts["attempts"], place, task)
        self._counts["attempts"] += 1

    def add(self, place: int, images: Mapping[str, Any], state: Any, progress: float) -> tuple[str, ...]:
        """Adds a frame and the progress that the model gave it, NaN if unknown. Returns the wires that the attempt trips so far."""
        attempt = self._watched[place]
        attempt.add(images, state, progress, self.config, self.familiar)
        return attempt.wires(self.config)

    def end(self, place: int, ask: AskFrozen | None = None) -> None:
        """Ends the attempt of an environment, counts it, and keeps it for the list if it trips a wire. ask: None leaves "frozen" out."""
        attempt = self._watched.pop(place, None)
        if attempt is None or not attempt.frames:
            return
        if ask is not None and self.config.frozen_steps and attempt.peak >= self.config.high:
            attempt.try_frozen(ask, self.config.frozen_steps)
        wires = attempt.wires(self.config)
        self._counts["ended"] += 1
        self._counts["high"] += attempt.peak >= self.config.high
        self._counts["tried frozen"] += math.isfinite(attempt.frozen_peak)
        self._counts.update(wires)
        if wires:
            self._tripped.append(TrippedAttempt(attempt.number, place, attempt.task, attempt.frames, attempt.peak, wires))
            if len(self._tripped) == 1:
                _log.warning("attempt %d has progress %.2f and trips %s: look at it", attempt.number, attempt.peak, " and ".join(wires))

    def counts(self) -> dict[str, int]:
        """Returns how many attempts ended, had high progress, were tried frozen, and tripped each wire."""
        return {name: self._counts[name] for name in ("ended", "high", "tried frozen", *WIRES)}

    def attempts(self) -> list[TrippedAttempt]:
        """Returns the attempts that tripped a wire, the newest last."""
        return list(self._tripped)

    def report(self) -> str:
        """Returns the counts in words, and the last ten attempts to look at."""
        counts = self.counts()
        rows = [f"{counts['ended']} attempts ended, {counts['high']} with progress of {self.config.high:g} or more"]
        rows += [f"  {counts[name]} {words}" for name, words in _WORDS.items()]
        rows[2] += f", of {counts['tried frozen']} that were tried"
        for each in self.attempts()[-10:]:
            rows.append(
                f"  attempt {each.number}, environment {each.place}, {each.frames} frames, peak {each.peak:.2f}: {', '.join(each.wires)}"
            )
        return "\n".join(rows)


_WORDS = {
    "still": "made most of their progress while nothing changed",
    "frozen": "made much of it on their first frame alone",
    "unfamiliar": "look unlike the demonstrations",
}
