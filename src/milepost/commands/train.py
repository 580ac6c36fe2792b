"""Train a reward model on a dataset. The model folder holds config, weights, log, a model card and the held-out table."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from milepost.commands.options import feature_cache, parse_episodes, resolve_device
from milepost.console import bars, say, table, warn
from milepost.embed import load_encoder
from milepost.evaluate import summary_table
from milepost.lerobot import open_dataset
from milepost.model_card import save_card
from milepost.models.sarm import AnnotationMode, SARMConfig
from milepost.train import PRESETS, TrainConfig, evaluate_held_out, train_sarm
from milepost.types import DataError


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    output_dir: Path
    """Folder for the trained model; made if missing."""
    model: Literal["sarm"] = "sarm"
    preset: Literal["paper", "small"] = "paper"
    """paper: the published sizes, optimiser and encoder (CLIP ViT-B/32), for a GPU. small: 2 layers of width 96 on the built-in encoder,
    minutes on a CPU."""
    annotation_mode: AnnotationMode = "single_stage"
    encoder: str | None = None
    """CLIP- or SigLIP-type model, a folder or owner/name, or "pixels", the built-in one; default: the preset's."""
    no_cache: bool = False
    """Do not keep the frames' features on disk, where they are in half precision."""
    image_key: tuple[str, ...] = ()
    """Camera or cameras to look at; default: all of the dataset's."""
    n_obs_steps: int | None = None
    gap_s: float | None = None
    """Seconds between the frames of the window."""
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    holdout: float = 0.1
    """Share of the start scenes (or episodes) kept out of training and evaluated on."""
    episodes: str | None = None
    """Episodes to use, such as 0-9,12; default: all."""
    revision: str | None = None
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    """Replace a model that is already in the output folder."""


BUILT_IN = {"image_dim": 64, "text_dim": 32}
"""Widths of the built-in encoder, which can have any."""

Config = TypeVar("Config", SARMConfig, TrainConfig)


def _changed(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, **{k: v for k, v in fields.items() if v is not None})


def main(args: Args) -> int:
    if (args.output_dir / "config.json").exists() and not args.overwrite:
        raise DataError(f"there is a trained model in {args.output_dir} already; use --overwrite or another --output-dir")
    dataset = open_dataset(args.dataset, revision=args.revision, episodes=parse_episodes(args.episodes))
    cameras = args.image_key or tuple(dataset.cameras)
    if not cameras:
        raise DataError(f"{dataset.name} has no camera to look at")
    unknown = [camera for camera in cameras if camera not in dataset.cameras]
    if unknown:
        raise DataError(f"no camera '{unknown[0]}'; this dataset has: {', '.join(dataset.cameras)}")
    sarm, train = PRESETS[args.preset]
    sarm = _changed(
        sarm, annotation_mode=args.annotation_mode, image_key=cameras[0], more_image_keys=cameras[1:],
        n_obs_steps=args.n_obs_steps, gap_s=args.gap_s,
    )  # fmt: skip
    device = resolve_device(args.device)
    if args.encoder is not None:
        sarm = _changed(sarm, encoder=args.encoder, **(BUILT_IN if args.encoder == "pixels" else {}))
    train = _changed(train, steps=args.steps, batch_size=args.batch_size, lr=args.lr, seed=args.seed, device=device)
    episodes = [dataset[i] for i in range(len(dataset))]
    stages = dataset.stages
    encoder = load_encoder(sarm.encoder, device=device, text_width=sarm.text_dim)
    with bars() as bar:
        features = feature_cache(dataset, encoder, keep=not args.no_cache, tick=bar("read and encode frames"))
        trained = train_sarm(
            episodes, sarm, train, folder=args.output_dir, stages=stages, holdout=args.holdout, features=features, on_stage=bar
        )
        held = [episode for episode in episodes if episode.index in trained.held_out]
        summaries = evaluate_held_out(trained.model, held, on_progress=bar("evaluate held-out"), seed=args.seed) if held else {}
    for left in trained.left_out:
        warn(str(left))
    save_card(args.output_dir, trained, dataset.name, summaries)
    if summaries:
        table(f"{len(held)} held-out episodes (95 % intervals over episodes)", *summary_table(summaries))
    say(f"model: {args.output_dir}")
    return 0
