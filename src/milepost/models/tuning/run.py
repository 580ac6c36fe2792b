"""From episodes to a fine-tuned model: divided, turned into clips, learnt from by the loop of all kinds, and measured before and after.

Held-out episodes decide nothing; their loss is computed with the checkpoint as it was and with what was learnt. An interrupted run goes on
to the same weights: the clips follow from the seed, and a checkpoint has the few weights that are learnt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from milepost.core import MAIN_HEAD, DataError, Episode, Stages, Tick, annotation_fault, has_words, quiet_stage, require_writable
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import current_process_group
from milepost.models.training.episodes import keep_aside, split
from milepost.models.training.loop import fit, run_key
from milepost.models.training.recipe import TrainResult
from milepost.models.tuning.learner import TuningLearner
from milepost.models.tuning.options import Source
from milepost.models.tuning.prepare import choose, outcome_doubts, sound, source_of, stages_of, unreadable_of
from milepost.models.tuning.tuner import Clip, Tuner, clips_of
from milepost.vlm import Lora, add_lora, read_learnt


@dataclass(frozen=True)
class Tuning:
    """What of a model is fine-tuned, on which clips.

    lora: the adapter, None for the heads alone. progress_from: stages or time; None: stages where there is an annotation.
    """

    lora: Lora | None = None
    progress_from: Source | None = None
    clips_per_episode: int = 8
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.clips_per_episode < 2:
            raise ValueError(f"clips_per_episode should be at least 2, the first frame and the whole episode; got {self.clips_per_episode}")


def fine_tune(
    tuner: Tuner,
    model: Any,
    episodes: Sequence[Episode],
    settings: tuple[TrainConfig, Tuning],
    *,
    folder: Path,
    own: Mapping[str, Stages],
    on_stage: Callable[[str], Tick] = quiet_stage,
) -> TrainResult:
    """Trains what is fine-tuned of a model, whose checkpoint is loaded, and saves what it learnt to `folder`. own: the dataset's own stages
    by head.

    An episode whose images cannot be read is left out and named in `TrainResult.unreadable`, as is one whose annotation cannot be true.
    DataError if nothing can be learnt; UnreadableError if no episode can be read.
    """
    (train, tuning), group = settings, current_process_group()
    source = source_of(episodes, tuning.progress_from)
    episodes, faults = sound(episodes, source, own.get(MAIN_HEAD))
    learnt, held_out = split(episodes, tuning.holdout, np.random.default_rng(train.seed))
    usable, left_out = choose(learnt, source, model.config.default_task)
    unreadable = unreadable_of([*usable, *held_out], model.config.image_key)
    usable, aside = keep_aside([each for each in usable if each.index not in unreadable], train.validation, train.seed)
    stages = stages_of(usable, source, own.get(MAIN_HEAD))
    model = _learning_model(tuner, model, tuning, folder)
    clips, checked, unseen = _clips(
        tuner, model, (usable, aside, [each for each in held_out if each.index not in unreadable]), stages, settings
    )
    if not clips:
        raise DataError(
            "nothing is known of any frame of the episodes to learn from: they failed and have no stages, or their stages end early"
        )
    learner = TuningLearner(tuner, model, clips, _weights(tuner, model, tuning, train.seed), adapter=tuning.lora is not None)
    learner.prepare([*clips, *checked, *unseen], on_stage("read clips"))
    before = learner.mean_loss(unseen, on_stage("held-out loss before")) if unseen else None
    if group.is_main:
        require_writable(folder)
    train = train.with_steps(len(clips), group.world_size)
    used = [[(each.index, each.length, each.task, each.success) for each in part] for part in (usable, aside)]
    key = run_key(model.config.to_dict(), dataclasses.asdict(tuning), stages, train.deciding(), used, group.world_size)
    evaluate = partial(learner.validation_scores, checked) if checked else None
    result = fit(
        learner, partial(_draw, len(clips)), config=train, folder=folder, key=key, on_progress=on_stage("train"), evaluate=evaluate
    )
    losses = {}
    if group.is_main:
        read_learnt(model.engine, folder, has_adapter=tuning.lora is not None)  # the best; and those of a run whose steps were done before
        losses = {} if before is None else {"before": before, "after": learner.mean_loss(unseen, on_stage("held-out loss after"))}
    used_numbers, aside_numbers, unseen_numbers = (tuple(each.index for each in part) for part in (usable, aside, held_out))
    return TrainResult(
        model, used_numbers, aside_numbers, unseen_numbers, tuple(left_out), result, faults | unreadable,
        doubts=tuple(outcome_doubts(usable, stages)), losses=losses,
    )  # fmt: skip


def _learning_model(tuner: Tuner, model: Any, tuning: Tuning, folder: Path) -> Any:
    """Returns the model as it is saved: its config names the checkpoint that it is made from, by commit or by whole path."""
    engine, config = model.engine, model.config
    base = Path(config.vlm_name).expanduser()
    return tuner.MODEL(
        dataclasses.replace(
            config,
            vlm_name=str(base.resolve()) if base.is_dir() else config.vlm_name,
            vlm_revision=engine.commit or config.vlm_revision,
            tuned="heads" if tuning.lora is None else "lora",
            tuned_on=engine.fingerprint,
            pretrained_path=str(folder),
        ),
        engine,
    )


def _weights(tuner: Tuner, model: Any, tuning: Tuning, seed: int) -> dict[str, nn.Parameter]:
    """Returns the weights that are learnt. A new adapter's are random, from the seed, and change nothing yet."""
    weights: dict[str, nn.Parameter] = {}
    if tuning.lora is not None:
        torch.manual_seed(seed)
        weights |= add_lora(model.engine, tuning.lora)
    return weights | tuner.weights(model.engine, adapter=tuning.lora is not None)


def _clips(
    tuner: Tuner, model: Any, groups: Sequence[Sequence[Episode]], stages: Stages | None, settings: tuple[TrainConfig, Tuning]
) -> list[list[Clip]]:
    """Returns the clips of the training, validation and held-out episodes. Those whose annotation does not fit the stages have none."""
    train, tuning = settings
    clips = []
    for number, group in enumerate(groups):
        fitting = [
            each for each in group
            if (has_words(each.task) or model.config.default_task) and (stages is None or each.sound_segments.get(MAIN_HEAD))
            and not (stages is not None and annotation_fault(each, MAIN_HEAD, stages))
        ]  # fmt: skip
        wrong = np.random.default_rng([train.seed, 2]) if not number else None
        clips.append(clips_of(tuner, model, fitting, stages, tuning.clips_per_episode, wrong))
    return clips


def _draw(count: int, size: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """Returns the numbers of the clips of a batch."""
    return {"clip": torch.from_numpy(rng.integers(count, size=size))}
