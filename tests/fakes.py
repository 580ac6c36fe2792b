"""A made-up world whose truth is known: a dot visits three marked places in order. No file, no video."""

from __future__ import annotations

import numpy as np

from milepost.core.stages import Stages, progress, targets
from milepost.core.types import ArrayFrames, Episode, Progress, Segment
from milepost.encoders.features import FeatureCache
from milepost.encoders.pixels import PixelImages

NAMES = ("reach", "carry", "place")
STAGES = Stages(NAMES, (1 / 3, 1 / 3, 1 / 3))
PLACES = np.array([[4.0, 4.0], [26.0, 6.0], [24.0, 26.0], [6.0, 24.0]])
CAMERA = "observation.images.top"


def dot_image(place: np.ndarray, colour: int) -> np.ndarray:
    """(32, 32, 3) uint8 with a 5 x 5 dot."""
    image = np.full((32, 32, 3), 30, dtype=np.uint8)
    x, y = np.clip(place.round().astype(int), 2, 29)
    image[y - 2 : y + 3, x - 2 : x + 3, colour % 3] = 255
    return image


def dot_episode(rng: np.random.Generator, index: int, *, row: int = 0, fails_at: float | None = None, task: int = 0) -> Episode:
    """One attempt: three legs of random length, each a stage. `fails_at`: share of the way at which the dot stops for good."""
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
    done = np.minimum(np.arange(total), total - 1 if fails_at is None else stop - 1)
    truth = progress(stage, tau, STAGES)[done]
    return Episode(
        index=index,
        row=row,
        task=f"visit the places with dot {task}",
        fps=10.0,
        length=total,
        state=path.astype(np.float32),
        cameras={CAMERA: ArrayFrames(np.stack([dot_image(place, task) for place in path]))},
        segments={"sparse": tuple(segments)},
        columns={"truth.progress": truth, "truth.stage": stage[done]},
        facts={"success": fails_at is None, "kind": "expert" if fails_at is None else "giving_up", "scene": index},
    )


def dot_episodes(count: int, seed: int = 0, failing: int = 0, tasks: int = 1) -> list[Episode]:
    """`count` attempts of which the last `failing` give up."""
    rng = np.random.default_rng(seed)
    episodes, row = [], 0
    for index in range(count):
        fails_at = float(rng.uniform(0.2, 0.6)) if index >= count - failing else None
        episodes.append(dot_episode(rng, index, row=row, fails_at=fails_at, task=index % tasks))
        row += episodes[-1].length
    return episodes


def reduced_dots(episodes: list[Episode]) -> list[np.ndarray]:
    """What the built-in encoder's fixed half makes of every frame, an array an episode."""
    cache = FeatureCache(None, "", encoder=PixelImages())
    return [cache.features(episode, [CAMERA]) for episode in episodes]


class ListDataset:
    """Episodes in memory as a Dataset."""

    def __init__(self, episodes: list[Episode], name: str = "dots") -> None:
        self.episodes, self.name, self.fingerprint = episodes, name, f"{name}-{len(episodes)}"
        self.fps = episodes[0].fps
        self.tasks = tuple(dict.fromkeys(episode.task for episode in episodes))
        self.cameras = tuple(episodes[0].cameras)

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.episodes[index]


class ConstantModel:
    """Says the same of every frame; counts how often it is asked, and can be interrupted after some episodes."""

    def __init__(self, value: float = 0.5, interrupt_after: int | None = None) -> None:
        self.value, self.asked, self.interrupt_after = value, 0, interrupt_after

    def identity(self) -> dict[str, float]:
        return {"value": self.value}

    def predict(self, episode: Episode) -> Progress:
        if self.asked == self.interrupt_after:
            raise KeyboardInterrupt
        self.asked += 1
        return Progress(episode.index, np.full(episode.length, self.value, dtype=np.float32))
