"""How every model that asks a VLM is made ready for a dataset from the command line."""

from __future__ import annotations

from functools import partial

from milepost.core import Episode, UnreadableError, require_cameras
from milepost.datasets import LeRobotDataset
from milepost.models.registry import Prepared, Run, require_heads
from milepost.models.zero_shot.model import ZeroShotModel
from milepost.models.zero_shot.options import VLMOptions
from milepost.models.zero_shot.sampling import anchors
from milepost.vlm import RemoteEngine


def prepare(model_class: type[ZeroShotModel], path: str, options: VLMOptions, dataset: LeRobotDataset, run: Run) -> Prepared:
    """Returns the model ready for a dataset, its VLM loaded. DataError if the camera is not there, or the VLM cannot be had."""
    anchors(2, options.num_prefixes)  # refused before 16 GB are loaded
    require_heads(path, run.heads)
    fields = options.given()
    if run.task is not None:
        fields["default_task"] = run.task
    if run.precision != "auto":
        fields["torch_dtype"] = run.precision
    bare = path == model_class.config_class.name
    model = model_class.bare(run.device, **fields) if bare else model_class.from_pretrained(path, run.device, **fields)
    dataset = dataset.showing([model.config.image_key])
    require_cameras([] if options.image_key is None else [options.image_key], dataset.cameras, hint="choose with --image-key")
    model.prepare_for(dataset)
    questions = partial(_questions, model, options.num_prefixes) if isinstance(model.engine, RemoteEngine) else None
    return Prepared(model, dataset, {"num_prefixes": options.num_prefixes}, questions=questions)


def _questions(model: ZeroShotModel, num_prefixes: int | None, episode: Episode) -> int:
    """Returns how many questions a server is asked about an episode: one a prefix, none if its instruction is refused."""
    try:
        model.instruction_of(episode)
    except UnreadableError:
        return 0
    return len(anchors(len(model.looked_at(episode.length, episode.fps)[0]), num_prefixes))
