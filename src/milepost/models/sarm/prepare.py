"""A dataset -> what SARM trains on: which episodes, whose stages, which statistics. Every episode left out is counted and named.

Episodes without the annotation that a mode needs are left out, never trained as zeros. In `single_stage` mode failed episodes are left out
too, because progress by elapsed time would be wrong for them. An episode that cannot teach tau (it failed) still teaches its stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from milepost.core import DataError, Episode, Stages, annotated_stages, annotation_fault, contradictions, has_words
from milepost.encoders import SIDE
from milepost.models.sarm.augmentation import OFTEN, changed, draw
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.samples import Augment, TrainingSet, label_episode, state_of
from milepost.models.training.episodes import FIT_FRAMES, LeftOut, attempts_of

ANNOTATED_BY = "; `milepost annotate DATASET` makes annotations, and annotation_mode='single_stage' needs none"
"""What to do about episodes that have no annotation."""


def choose(episodes: Sequence[Episode], config: SARMConfig) -> tuple[list[Episode], list[LeftOut]]:
    """Returns the episodes this mode can learn from, and those it cannot. DataError on a one-frame episode, or if none is left."""
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
    chosen_episodes = [episode for episode, use in zip(episodes, usable, strict=True) if use]
    if not chosen_episodes:
        words = f"annotation_mode '{config.annotation_mode}' finds no episode to learn from: {LeftOut(reason, out)}"
        raise DataError(f"{words}{ANNOTATED_BY if config.annotated_heads else ''}")
    return chosen_episodes, [LeftOut(reason, out)] if out else []


def with_statistics(config: SARMConfig, episodes: Sequence[Episode], dataset_stages: Mapping[str, Stages]) -> SARMConfig:
    """Returns the config with stage names and proportions (the dataset's own if given, else eq. 1 over finished episodes) and state
    statistics (the config's own if it has any). DataError if the annotations contradict the stages, see `stages.contradictions`.
    """
    fields: dict[str, Any] = {"blank_task": config.blank_task or any(not has_words(episode.task) for episode in episodes)}
    for head in config.annotated_heads:
        attempts = attempts_of(episodes, head)
        stages = dataset_stages.get(head) or annotated_stages(attempts)
        if wrong := contradictions(attempts, stages.names):
            raise DataError(f"the {head} annotation contradicts itself: {wrong[0]}")
        fields[f"{head}_subtask_names"], fields[f"{head}_temporal_proportions"] = stages.names, stages.shares
    if not config.state_mean:
        state = np.concatenate([state_of(episode, config) for episode in episodes]).astype(np.float64)
        fields["state_mean"] = tuple(float(x) for x in state.mean(axis=0))
        fields["state_std"] = tuple(float(x) for x in state.std(axis=0))
    return dataclasses.replace(config, **fields)


def without_faults(
    episodes: Sequence[Episode], config: SARMConfig, dataset_stages: Mapping[str, Stages]
) -> tuple[list[Episode], dict[int, str]]:
    """Returns the episodes whose annotation can be true, and why each other one's cannot. DataError, with the first reason, if none can.

    given: head -> the dataset's own stages, where it lists them; a stage that is not among them makes its episode unusable.
    """
    faults: dict[int, str] = {}
    for episode in episodes:
        for head in config.annotated_heads:
            if fault := annotation_fault(episode, head, dataset_stages.get(head)):
                faults[episode.index] = f"{fault}; annotate it again (milepost info lists all such episodes)"
    if episodes and len(faults) == len(episodes):
        episode_index, fault = next(iter(faults.items()))
        raise DataError(f"no episode has an annotation that can be true; episode {episode_index}: {fault}")
    return [episode for episode in episodes if episode.index not in faults], faults


def check_labels(episodes: Sequence[Episode], config: SARMConfig) -> None:
    """Raises DataError if an annotation or a state does not fit: now, before hours of encoding."""
    for episode in episodes:
        label_episode(episode, np.zeros((episode.length, 0, 0), dtype=np.float32), config)


def training_set(
    model: SARMModel,
    episodes: Sequence[Episode],
    features: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    variants: Sequence[np.ndarray] = (),
    fitted: bool = False,
) -> TrainingSet:
    """Returns every episode with its labels. features: the frozen encoder's output (T, C, E) of each.

    variants: the same (V, T, C, E) of each episode's changed copies, of which a window takes one; none without augmentation, and none with
    the built-in encoder, which changes its images window by window. That one is fitted on a sample of the frames first, unless it is
    fitted already.
    """
    if model.config.encoder != "pixels":
        return validation_set(model, episodes, features, one_of(np.concatenate(features), variants) if variants else None)
    frames, strength = np.concatenate(features), model.config.augmentation
    if not fitted:
        sample = rng.choice(len(frames), size=min(FIT_FRAMES, len(frames)), replace=False)
        model.encoder.fit(_changed(frames[np.sort(sample)][:, None], strength, rng)[:, 0] if strength else frames[np.sort(sample)])

    def augmented(rows: Int[np.ndarray, "B L"], rng: np.random.Generator) -> Float[np.ndarray, "B L C E"]:
        images = _changed(frames[rows], strength, rng)
        return model.project(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:3], -1)

    return validation_set(model, episodes, features, augmented if strength else None)


def one_of(frames: Shaped[np.ndarray, "N C E"], variants: Sequence[Shaped[np.ndarray, "V _ C E"]]) -> Augment:
    """Returns a function that gives each window the features of one changed copy, or of the recording."""
    copies = np.concatenate(variants, axis=1)

    def augmented(rows: Int[np.ndarray, "B L"], rng: np.random.Generator) -> Float[np.ndarray, "B L C E"]:
        which, on = rng.integers(len(copies), size=len(rows)), rng.random(len(rows)) < OFTEN
        return np.where(on[:, None, None, None], copies[which[:, None], rows], frames[rows]).astype(np.float32)

    return augmented


def _changed(reduced: UInt8[np.ndarray, "B L C 768"], strength: float, rng: np.random.Generator) -> Float[np.ndarray, "B L C 768"]:
    """Returns the built-in encoder's reduced images, changed as `augmentation` says."""
    images = reduced.reshape(*reduced.shape[:3], SIDE, SIDE, 3)
    return changed(images, draw(len(images), images.shape[2], strength, rng), rng).reshape(reduced.shape)


def validation_set(
    model: SARMModel, episodes: Sequence[Episode], features: Sequence[np.ndarray], augmented: Augment | None = None
) -> TrainingSet:
    """Returns the same for validation episodes, with an encoder that is fitted already; for `TrainingSet.plain`."""
    labelled = [label_episode(e, model.project(f), model.config) for e, f in zip(episodes, features, strict=True)]
    return TrainingSet(labelled, model.config, words=model.frozen.text, augmented=augmented)
