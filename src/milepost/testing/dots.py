"""A made-up world whose truth is known: a dot visits three marked places in order. In memory, or as a LeRobot dataset on disk.

Progress can be read off the pictures and off the state alike, so a model that looks at either can learn it, and a clock cannot: the legs
of an attempt have random lengths, and some attempts give up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from milepost.core import ArrayFrames, DataError, Episode, Progress, Segment, Stages, progress, targets
from milepost.datasets import Recording, write_dataset
from milepost.encoders import FeatureCache, PixelImages

NAMES = ("reach", "carry", "place")
STAGES = Stages(NAMES, (1 / 3, 1 / 3, 1 / 3))
"""The stages of every attempt, with the share of the whole that each one is."""
PLACES = np.array([[4.0, 4.0], [26.0, 6.0], [24.0, 26.0], [6.0, 24.0]])
CAMERA = "observation.images.top"
FPS = 10


def dot_image(place: Float[np.ndarray, "2"], colour: int) -> UInt8[np.ndarray, "32 32 3"]:
    """Returns a grey picture with a dot of 5 x 5 pixels. place: x and y in pixels. colour: 0 red, 1 green, 2 blue."""
    image = np.full((32, 32, 3), 30, dtype=np.uint8)
    x, y = np.clip(place.round().astype(int), 2, 29)
    image[y - 2 : y + 3, x - 2 : x + 3, colour % 3] = 255
    return image


def dot_episode(rng: np.random.Generator, index: int, *, row: int = 0, fails_at: float | None = None, task: int = 0) -> Episode:
    """Returns one attempt at 10 frames a second: three legs of 6 to 13 frames, each a stage.

    index, row: as in `Episode`. fails_at: the share of the way at which the dot stops for good; None for a success. task: a number, which
    decides the instruction and the dot's colour. The episode has what is true in its columns: `truth.progress` (T,) float32 in [0, 1], and
    `truth.stage` (T,) int64. Its state (T, 2) is the dot's place in pixels.
    """
    lengths = rng.integers(6, 14, size=3)
    path = np.concatenate([np.linspace(PLACES[k], PLACES[k + 1], n, endpoint=False) for k, n in enumerate(lengths)])
    path += rng.normal(0, 0.3, path.shape)
    cuts = np.concatenate([[0], np.cumsum(lengths)])
    total = int(cuts[-1])
    stop = total if fails_at is None else max(2, int(total * fails_at))
    path[stop:] = path[stop - 1]
    segments = [Segment(NAMES[k], int(cuts[k]), int(min(cuts[k + 1], stop))) for k in range(3) if cuts[k] < stop]
    if fails_at is not None:
        segments[-1] = Segment(segments[-1].name, segments[-1].start, total)
    stage, tau = targets([Segment(NAMES[k], int(cuts[k]), int(cuts[k + 1])) for k in range(3)], NAMES, total, success=True)
    reached = np.minimum(np.arange(total), total - 1 if fails_at is None else stop - 1)
    truth = progress(stage, tau, STAGES)[reached]
    return Episode(
        index=index,
        row=row,
        task=f"visit the places with dot {task}",
        fps=float(FPS),
        length=total,
        state=path.astype(np.float32),
        cameras={CAMERA: ArrayFrames(np.stack([dot_image(place, task) for place in path]))},
        segments={"sparse": tuple(segments)},
        columns={"truth.progress": truth, "truth.stage": stage[reached]},
        facts={"success": fails_at is None, "kind": "expert" if fails_at is None else "giving_up", "scene": index},
    )


def dot_episodes(count: int, seed: int = 0, failing: int = 0, tasks: int = 1) -> list[Episode]:
    """Returns `count` attempts, numbered from 0, of which the last `failing` give up. The same seed gives the same attempts.

    >>> [episode.success for episode in dot_episodes(3, failing=1)]
    [True, True, False]
    """
    rng = np.random.default_rng(seed)
    episodes, row = [], 0
    for index in range(count):
        fails_at = float(rng.uniform(0.2, 0.6)) if index >= count - failing else None
        episodes.append(dot_episode(rng, index, row=row, fails_at=fails_at, task=index % tasks))
        row += episodes[-1].length
    return episodes


def write_dots(root: Path | str, episodes: Sequence[Episode]) -> None:
    """Writes attempts as a LeRobot v3.0 dataset: films (H.264, so its pictures are not exact), annotation, facts and the truth's columns.

    DataError if `root` exists.
    """
    shares = dict(zip(STAGES.names, STAGES.shares, strict=True))
    write_dataset(Path(root), map(_recording, episodes), fps=FPS, codec="libx264", robot_type="dot", proportions={"sparse": shares})


def _recording(episode: Episode) -> Recording:
    every = np.arange(episode.length)
    action = np.diff(episode.state, axis=0, append=episode.state[-1:]).astype(np.float32)
    images = {name: iter(frames[every]) for name, frames in episode.cameras.items()}
    success = np.zeros(episode.length, dtype=bool)
    success[-1] = bool(episode.success)
    columns = {**episode.columns, "next.success": success}
    return Recording(episode.task, episode.state, action, images, columns, segments=episode.segments, facts=episode.facts)


def reduced_dots(episodes: Sequence[Episode]) -> list[Shaped[np.ndarray, "T C P"]]:
    """Returns what the fixed half of the built-in encoder makes of every frame, an array an episode."""
    cache = FeatureCache(None, "", encoder=PixelImages())
    return [cache.features(episode, [CAMERA]) for episode in episodes]


class ListDataset:
    """Episodes in memory as a `Dataset`. Its fingerprint is its name and how many there are. DataError if there is none."""

    def __init__(self, episodes: Sequence[Episode], name: str = "dots") -> None:
        if not episodes:
            raise DataError("a ListDataset has one episode or more, got none")
        self.episodes, self.name, self.fingerprint = list(episodes), name, f"{name}-{len(episodes)}"
        self.fps = self.episodes[0].fps
        self.tasks = tuple(dict.fromkeys(episode.task for episode in self.episodes))
        self.cameras = tuple(self.episodes[0].cameras)

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]


class ConstantModel:
    """A reward model that says the same of every frame. `calls` counts how often.

    interrupt_after: so many answers are given, then KeyboardInterrupt is raised, as by Ctrl-C.
    """

    def __init__(self, value: float = 0.5, interrupt_after: int | None = None) -> None:
        self.value, self.calls, self.interrupt_after = value, 0, interrupt_after

    def identity(self) -> dict[str, float]:
        """Returns its value, which is all that its curves depend on."""
        return {"value": self.value}

    def predict(self, episode: Episode) -> Progress:
        """Returns the value, for every frame."""
        if self.calls == self.interrupt_after:
            raise KeyboardInterrupt
        self.calls += 1
        return Progress(episode.index, np.full(episode.length, self.value, dtype=np.float32))
