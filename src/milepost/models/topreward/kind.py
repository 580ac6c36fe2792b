"""TOPReward as one of the kinds of reward models: how it is loaded, made and made ready."""

from __future__ import annotations

from functools import partial
from typing import Any

from milepost.core import Episode, UnreadableError, require_cameras
from milepost.datasets import LeRobotDataset
from milepost.models.processing import BatchStep, to_cpu
from milepost.models.registry import ModelKind, Prepared, Run, is_bare, require_heads
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel, read_config
from milepost.models.topreward.options import TOPRewardOptions
from milepost.models.topreward.processor import encode_batch
from milepost.models.topreward.sampling import anchors, looked_at
from milepost.vlm import RemoteEngine


def bare(device: str | None = None, **fields: Any) -> TOPRewardModel:
    """Returns the model of a config with these fields. ValueError if there is no such field."""
    return TOPRewardModel(TOPRewardConfig(device=device, **fields))


def prepare(path: str, options: TOPRewardOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset, its VLM loaded. DataError if the camera is not there, or the VLM cannot be had."""
    anchors(2, options.num_prefixes)  # refused before 16 GB are loaded
    require_heads(path, run.heads)
    fields = options.given()
    if run.task is not None:
        fields["default_task"] = run.task
    if run.precision != "auto":
        fields["torch_dtype"] = run.precision
    model = bare(run.device, **fields) if is_bare(path, MODEL) else TOPRewardModel.from_pretrained(path, run.device, **fields)
    dataset = dataset.showing([model.config.image_key])
    require_cameras([] if options.image_key is None else [options.image_key], dataset.cameras, hint="choose with --image-key")
    model.prepare_for(dataset)
    questions = partial(_questions, model, options.num_prefixes) if isinstance(model.engine, RemoteEngine) else None
    return Prepared(model, dataset, {"num_prefixes": options.num_prefixes}, questions=questions)


def make(config: TOPRewardConfig, folder: str | None) -> TOPRewardModel:
    """Returns the model of a config; a folder has nothing more than the config."""
    return TOPRewardModel(config)


def _questions(model: TOPRewardModel, num_prefixes: int | None, episode: Episode) -> int:
    """Returns how many questions a server is asked about an episode: one a prefix, none if its instruction is refused."""
    try:
        model.instruction_of(episode)
    except UnreadableError:
        return 0
    return len(anchors(len(looked_at(episode.length, episode.fps, model.config)[0]), num_prefixes))


def processors(config: TOPRewardConfig, **_: Any) -> tuple[BatchStep, BatchStep]:
    """Returns (before, after) of `compute_reward`; no statistics of a dataset are needed."""
    return partial(encode_batch, config=config), to_cpu


MODEL = ModelKind(
    "topreward", TOPRewardModel.from_pretrained, bare, config=TOPRewardConfig, make=make, read_config=read_config,
    options=TOPRewardOptions, prepare=prepare, processors=processors,
    untrainable="TOPReward is zero-shot: there is nothing to train. Use milepost label DATASET --model topreward",
)  # fmt: skip
