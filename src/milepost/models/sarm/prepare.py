"""A dataset -> what SARM trains on: which episodes, whose stages, which statistics. Every episode left out is counted and named.

Episodes without the annotation a mode needs are left out, never trained as zeros; in `single_stage` mode so are failed episodes, of
which a clock would be a lie. An episode that cannot teach tau (it failed) still teaches its stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from milepost.embed import PixelEncoder, reduce_cached
from milepost.models.sarm.batches import TrainingSet, label_episode
from milepost.models.sarm.config import SARMConfig
from milepost.stages import Stages, finished, names_in_order, proportions
from milepost.types import DataError, Episode

FIT_FRAMES = 4096


@dataclass(frozen=True)
class LeftOut:
    """Episodes a model cannot learn from, and why."""

    reason: str
    episodes: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.episodes[:8])) + (", ..." if len(self.episodes) > 8 else "")
        return f"{len(self.episodes)} episodes left out, {self.reason}: {shown}"


def choose(episodes: Sequence[Episode], config: SARMConfig) -> tuple[list[Episode], list[LeftOut]]:
    """The episodes this mode can learn from, and those it cannot. DataError on a one-frame episode, or if none is left."""
    for episode in episodes:
        if episode.length < 2:
            raise DataError(f"episode {episode.index} has one frame, which shows no progress; remove it or choose others with --episodes")
    if config.annotated_heads:
        reason = f"no {' and '.join(config.annotated_heads)} subtask annotation"
        usable = [all(episode.segments.get(head) for head in config.annotated_heads) for episode in episodes]
    else:
        reason = "failed, and single_stage knows only finished attempts"
        usable = [episode.success is not False for episode in episodes]
    out = tuple(episode.index for episode, use in zip(episodes, usable, strict=True) if not use)
    kept = [episode for episode, use in zip(episodes, usable, strict=True) if use]
    if not kept:
        raise DataError(f"annotation_mode '{config.annotation_mode}' finds no episode to learn from: {LeftOut(reason, out)}")
    return kept, [LeftOut(reason, out)] if out else []


def with_statistics(config: SARMConfig, episodes: Sequence[Episode], given: dict[str, Stages]) -> SARMConfig:
    """The config with stage names and shares (the dataset's own where `given`, else eq. 1 over finished episodes) and state statistics."""
    fields: dict[str, Any] = {}
    for head in config.annotated_heads:
        stages = given.get(head) or _stages(episodes, head)
        fields[f"{head}_subtask_names"], fields[f"{head}_temporal_proportions"] = stages.names, stages.shares
    state = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
    fields["state_mean"] = tuple(float(x) for x in state.mean(axis=0))
    fields["state_std"] = tuple(float(x) for x in state.std(axis=0))
    return dataclasses.replace(config, **fields)


def _stages(episodes: Sequence[Episode], head: str) -> Stages:
    annotations = [episode.segments[head] for episode in episodes]
    names = names_in_order(annotations)
    done = [segments for segments, episode in zip(annotations, episodes, strict=True) if finished(segments, names, episode.success)]
    return proportions(done or annotations, names)


def reduce_all(
    episodes: Sequence[Episode], cameras: Sequence[str], cache: Path | None, on_progress: Callable[[int, int], None]
) -> list[UInt8[np.ndarray, "T C 768"]]:
    """Every frame of these episodes reduced for the built-in encoder."""
    out = []
    for done, episode in enumerate(episodes):
        on_progress(done, len(episodes))
        out.append(reduce_cached(episode, cameras, cache))
    on_progress(len(episodes), len(episodes))
    return out


def training_set(
    encoder: PixelEncoder, episodes: Sequence[Episode], reduced: Sequence[np.ndarray], config: SARMConfig, rng: np.random.Generator
) -> TrainingSet:
    """Fits the encoder on a sample of the training frames, then labels every episode."""
    frames = np.concatenate(reduced)
    sample = rng.choice(len(frames), size=min(FIT_FRAMES, len(frames)), replace=False)
    encoder.fit(frames[np.sort(sample)])
    return TrainingSet([label_episode(e, encoder.project(r), config) for e, r in zip(episodes, reduced, strict=True)], config)


def validation_set(encoder: PixelEncoder, episodes: Sequence[Episode], reduced: Sequence[np.ndarray], config: SARMConfig) -> TrainingSet:
    """Episodes kept aside, seen through an encoder already fitted; for `TrainingSet.plain`."""
    return TrainingSet([label_episode(e, encoder.project(r), config) for e, r in zip(episodes, reduced, strict=True)], config)
