"""A value model trained on a dataset: what `milepost train --model value` and `milepost.train(..., model="value")` do, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from milepost.core import DataError, Tick, output_lock, quiet_stage
from milepost.datasets import LeRobotDataset, as_dataset
from milepost.encoders import FeatureCache, cache_folder, load_encoder
from milepost.models.sarm.train import TrainResult, read_episodes
from milepost.models.sarm.training import Bars, audited, require_free
from milepost.models.training.checkpoints import finish_run
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import init_process_group
from milepost.models.value.card import save_card
from milepost.models.value.config import ValueConfig
from milepost.models.value.settings import Plan, plan
from milepost.models.value.train import evaluate_held_out, train_value

__all__ = ["Plan", "plan", "train", "training_run"]


def train(
    dataset: LeRobotDataset | Path | str,
    output_dir: Path | str,
    *,
    preset: str | None = None,
    config: ValueConfig | None = None,
    training: TrainConfig | None = None,
    on_stage: Callable[[str], Tick] = quiet_stage,
    **changes: Any,
) -> TrainResult:
    """Trains a value model on a dataset, and saves the model, its card and the table about held-out episodes in `output_dir`.

    changes: fields of ValueConfig or TrainConfig by name, and `holdout`, `keep_features`, `image_key`, as for SARM. config, training: a
    whole model or training instead. An interrupted run goes on when the same call is made again. DataError if no value can be learnt.
    """
    dataset = as_dataset(dataset)
    own = {name: changes.pop(name) for name in ("holdout", "keep_features") if name in changes}
    if changes and (config is not None or training is not None):
        raise DataError(f"give {', '.join(changes)} inside config= or training=, or leave these out")
    base = plan(dataset, preset, **own, **changes)
    base = dataclasses.replace(base, config=config or base.config, train=training or base.train)
    with training_run(dataset, Path(output_dir), base, bars=lambda: nullcontext(on_stage)) as result:
        return result


@contextmanager
def training_run(dataset: LeRobotDataset, folder: Path, plan: Plan, *, bars: Bars) -> Iterator[TrainResult]:
    """Trains, evaluates and saves; yields the result, with which the caller does what else belongs to the run, such as an upload.

    The run is marked as finished when the block ends without an error; until then the same call goes on from there. DataError if a finished
    model is in the folder.
    """
    config, train = plan.config, dataclasses.replace(plan.train, more_follows=True)
    require_free(folder, overwrite=train.overwrite)
    encoder = load_encoder(plan.encoder or config.encoder, device=train.device, text_width=config.text_dim)
    with init_process_group(train.device) as group, output_lock(folder) if group.is_main else nullcontext():
        if group.is_main:
            require_free(folder, overwrite=train.overwrite)
        with bars() if group.is_main else nullcontext(quiet_stage) as bar:
            kept_in = cache_folder() if plan.keep_features else None
            features = FeatureCache(
                kept_in, dataset.fingerprint, encoder=encoder, half=kept_in is not None, on_frames=bar("read and encode frames")
            )
            episodes, unreadable = read_episodes(dataset)
            result = train_value(episodes, config, train, folder=folder, holdout=plan.holdout, features=features, on_stage=bar)
            if group.is_main:
                unreadable = {**unreadable, **result.unreadable}
                summaries = evaluate_held_out(
                    result.model, [each for each in episodes if each.index in result.held_out], on_progress=bar("evaluate held-out"),
                    seed=train.seed, on_unreadable=lambda number, error: unreadable.update({number: str(error)}),
                )  # fmt: skip
                result = dataclasses.replace(result, unreadable=unreadable, summaries=summaries)
                result = audited(result, dataset, episodes, bar, train.seed)
            else:
                result = dataclasses.replace(result, is_main=False)
        if group.is_main:
            save_card(folder, result, dataset.name, fingerprint=dataset.fingerprint)
        yield result
        if group.is_main:
            finish_run(folder)
