"""A model trained on a dataset, of any kind: what `milepost train` and `milepost.train` do, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from milepost.core import DataError, Tick, output_lock, quiet_stage, read_episodes
from milepost.datasets import LeRobotDataset, as_dataset, is_dataset
from milepost.models.registry import trainer_of
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import init_process_group
from milepost.models.training.episodes import one_sided
from milepost.models.training.evaluation import audited, evaluated
from milepost.models.training.marks import finish_run, is_unfinished
from milepost.models.training.recipe import TrainResult
from milepost.models.training.settings import Plan

Bars = Callable[[], AbstractContextManager[Callable[[str], Tick]]]
"""Opens a display of progress: inside it, a function gives a callback (done, total) for each named part of the work."""


def train(
    dataset: LeRobotDataset | Path | str,
    output_dir: Path | str,
    *,
    model: str = "sarm",
    preset: str | None = None,
    config: Any = None,
    training: TrainConfig | None = None,
    on_stage: Callable[[str], Tick] = quiet_stage,
    **changes: Any,
) -> TrainResult:
    """Trains a model on a dataset, and saves the model, its card and the table about held-out episodes in `output_dir`.

    model: its kind; of another kind than "sarm", config and changes are those of its own config. preset: "paper" (the default), the
    published sizes, for a GPU; "small", minutes on a CPU. changes: fields of SARMConfig or TrainConfig that replace the preset's values,
    such as `steps=200` or `annotation_mode="dual"`; `holdout`, which proportion is not learnt from but evaluated on (0.1);
    `keep_features`, whether the encoder's features stay on disk (True); `image_key`, the cameras (all); `for_lerobot`, whether LeRobot's
    form of the model is saved too (False). config, training: a whole model or a whole training in place of a preset. on_stage(name): gives
    a callback (done, total) for each part of the work. An interrupted run goes on when the same call is made again. DataError if a finished
    model is in the folder already, if no episode is usable, or if a name is no setting.

    "dots" is what `milepost.testing.write_example("dots")` writes: six episodes and a progress file.

    >>> dataset = milepost.open_dataset("dots")
    >>> result = milepost.train(dataset, "sarm", preset="small", steps=2, batch_size=4, keep_features=False)
    >>> result.fit_result.steps
    2
    >>> type(milepost.load_model("sarm")).__name__
    'SARMModel'
    """
    dataset, trainer = as_dataset(dataset), trainer_of(model)
    if preset is not None and (config is not None or training is not None):
        raise DataError(
            "config= and training= would replace all values of the preset; give changes of a preset by their names, such as steps=200"
        )
    beside = {name: changes.pop(name) for name in ("holdout", "keep_features", "for_lerobot") if name in changes}
    if changes and (config is not None or training is not None):
        raise DataError(f"give {', '.join(changes)} inside config= or training=, or leave these out and name a preset")
    plan = trainer.plan(dataset, preset, **beside, **changes)
    plan = dataclasses.replace(plan, config=config or plan.config, train=training or plan.train)
    with training_run(dataset, Path(output_dir), plan, bars=lambda: nullcontext(on_stage)) as result:
        return result


@contextmanager
def training_run(dataset: LeRobotDataset, folder: Path, plan: Plan, *, bars: Bars) -> Iterator[TrainResult]:
    """Trains, evaluates and saves; yields the result, with which the caller does what else belongs to the run, such as an upload.

    The run is marked as finished when the block ends without an error; until then the same call goes on from there. In the processes of a
    launcher that are not the main one nothing is written, and the result has no table. DataError if a finished model is in the folder.
    """
    train = dataclasses.replace(plan.train, more_follows=True)
    require_free(folder, overwrite=train.overwrite)
    learn = plan.opened(dataset, train)
    with init_process_group(train.device) as group, output_lock(folder) if group.is_main else nullcontext():
        if group.is_main:
            require_free(folder, overwrite=train.overwrite)
        with bars() if group.is_main else nullcontext(quiet_stage) as bar:
            episodes, unreadable = read_episodes(dataset)
            result = learn(episodes, folder, bar)
            if group.is_main:
                result = plan.concluded(result, dataset, episodes, folder, bar)
                result = evaluated(result, episodes, unreadable, bar("evaluate held-out"), train.seed)
                result = audited(result, dataset, episodes, bar, train.seed)
                result = dataclasses.replace(result, doubts=(*result.doubts, *one_sided(episodes, result.held_out)))
            else:
                result = dataclasses.replace(result, is_main=False)
        if group.is_main:
            plan.save_card(folder, result, dataset)
        yield result
        if group.is_main:
            finish_run(folder)


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raises DataError if a finished model would be replaced and `overwrite` is False."""
    if is_dataset(folder):
        raise DataError(f"{folder} is a dataset, whose README.md a model's card would replace; choose another --output-dir")
    begun = (folder / "config.json").exists() or is_unfinished(folder)
    if (folder / "README.md").exists() and not (begun or overwrite):
        raise DataError(f"{folder} has a README.md, which the model's card would replace; choose another --output-dir, or use --overwrite")
    if (folder / "config.json").exists() and not (overwrite or is_unfinished(folder)):
        raise DataError(
            f"there is a trained model in {folder} already; use --overwrite or another --output-dir (in Python overwrite=True or another "
            "output_dir)"
        )
