"""The kind of a model that asks a VLM: how such a model is loaded, made, and made ready for a dataset from the command line."""

from __future__ import annotations

from functools import partial
from typing import Any

from milepost.core import Episode, UnreadableError, require_cameras
from milepost.datasets import LeRobotDataset
from milepost.models.registry import ModelKind, Prepared, Run, require_heads
from milepost.models.zero_shot.model import ZeroShotModel, read_config
from milepost.models.zero_shot.options import VLMOptions
from milepost.models.zero_shot.sampling import anchors
from milepost.vlm import RemoteEngine


def kind_of_class(model_class: type[ZeroShotModel], options: type[VLMOptions], *, reason: str = "is zero-shot", **more: Any) -> ModelKind:
    """Returns the kind of a model that asks a VLM. reason: why it cannot be trained, after its name. more: further fields of the kind."""
    config = model_class.config_class
    untrainable = f"{config.title} {reason}: there is nothing to train. Use milepost label DATASET --model {config.name}"
    untrainable = "" if "training" in more else untrainable

    def make(values: Any, folder: str | None) -> ZeroShotModel:
        return model_class(values)  # a folder has nothing more than the config

    return ModelKind(
        config.name, model_class.from_pretrained, model_class.bare, config=config, make=make, read_config=partial(read_config, config),
        options=options, prepare=partial(prepare, model_class), untrainable=untrainable, **more,
    )  # fmt: skip


def prepare(model_class: type[ZeroShotModel], path: str, options: VLMOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset, its VLM loaded. DataError if the camera is not there, or the VLM cannot be had."""
    num_prefixes = getattr(options, "num_prefixes", None)
    anchors(2, num_prefixes)
    require_heads(path, run.heads)
    fields = options.given()
    if run.task is not None:
        fields["default_task"] = run.task
    if run.precision != "auto":
        fields["torch_dtype"] = run.precision
    bare = path == model_class.config_class.name
    model = model_class.bare(run.device, **fields) if bare else model_class.from_pretrained(path, run.device, **fields)
    model.questions_of(2, num_prefixes)  # refused before 16 GB are loaded
    dataset = dataset.showing([model.config.image_key])
    required = [] if options.image_key is None else [options.image_key]
    require_cameras(required, dataset.cameras, hint="choose with --image-key")
    model.prepare_for(dataset)
    questions = partial(_questions, model, num_prefixes) if isinstance(model.engine, RemoteEngine) else None
    return Prepared(model, dataset, {"num_prefixes": num_prefixes}, questions=questions, required=(required, "--image-key"))


def _questions(model: ZeroShotModel, num_prefixes: int | None, episode: Episode) -> int:
    """Returns how many questions a server is asked about an episode: none if its instruction is refused."""
    try:
        model.instruction_of(episode)
    except UnreadableError:
        return 0
    return model.questions(episode, num_prefixes)
