"""Write a model's progress for every frame of a dataset: `<dataset>/<model>_progress.parquet`, which LeRobot's RA-BC reads as it is."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from milepost.commands.options import feature_cache, parse_episodes, resolve_device, settle_model
from milepost.console import Tick, bars, say, table, warn
from milepost.embed.clip import Precision
from milepost.labelling import label, provenance, unknown_frames
from milepost.lerobot import open_dataset
from milepost.models import load_model
from milepost.models.sarm import SARMModel
from milepost.store import METADATA_PREFIX, read_progress
from milepost.types import DataError


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder, or "elapsed" for the clock."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    """Heads to write; with dense or both, both columns are there."""
    stride: int = 1
    """Look at every N-th frame and the last; between them progress is interpolated."""
    encoder: str | None = None
    """Instead of the encoder the model names: a folder or owner/name."""
    no_cache: bool = False
    """Do not keep the frames' features on disk, where they are in half precision, which moves progress by up to about 1e-3."""
    precision: Precision = "float32"
    """What encoder and networks compute in."""
    output_path: Path | None = None
    """Where to write; default: beside the dataset. A Hub dataset needs one."""
    episodes: str | None = None
    """Episodes to label, such as 0-9,12; default: all."""
    state_stats: str | None = None
    """For a LeRobot checkpoint without them: the dataset whose state statistics it was trained with; default: DATASET, as LeRobot does."""
    revision: str | None = None
    device: str = "auto"
    overwrite: bool = False
    """Replace a progress file made by another model, or with other options."""
    json: bool = False


def _heads(model: SARMModel, mode: str) -> list[str]:
    if mode == "sparse":
        return ["sparse"]
    if "dense" not in model.config.heads:
        raise DataError(
            f"--head-mode {mode}: this model was trained with annotation_mode '{model.config.annotation_mode}', without a dense head"
        )
    return ["sparse", "dense"]


def _require_same(path: Path, wanted: Mapping[str, str]) -> None:
    """DataError if what is there was made by another model, or with other options; the dataset may have changed if it was incomplete."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; --output-path takes the name of a file")
    there = read_progress(path)
    named = {"model_path": "model", "weights_sha256": "weights", "config": "config", "dataset_fingerprint": "dataset"}
    other = [words for key, words in named.items() if there.metadata.get(f"{METADATA_PREFIX}{key}") != wanted[key]]
    before, now = (json_module.loads(each or "{}") for each in (there.metadata.get(f"{METADATA_PREFIX}settings"), wanted["settings"]))
    other += [f"--{name.replace('_', '-')}" for name in now if before.get(name) != now[name]]
    if other == ["dataset"] and unknown_frames(there):
        return
    if other:
        raise DataError(f"{path} was made with another {', '.join(other)}; use --overwrite or another --output-path")


def _over_all(tick: Tick, total: int) -> Tick:
    """One bar over the frames of all episodes, told of one episode after the other."""
    done, last = 0, 0

    def count(now: int, all_of_it: int) -> None:
        nonlocal done, last
        done, last = done + now - (last if now > last else 0), now if now < all_of_it else 0
        tick(min(done, total), total)

    return count


def main(args: Args) -> int:
    if args.stride < 1:
        raise ValueError(f"--stride must be at least 1, got {args.stride}")
    model = load_model(args.model, resolve_device(args.device), encoder=args.encoder, precision=args.precision)
    dataset = open_dataset(args.dataset, revision=args.revision, episodes=parse_episodes(args.episodes))
    options = {"heads": _heads(model, args.head_mode), "stride": args.stride} if isinstance(model, SARMModel) else {}
    settle_model(model, args.state_stats, dataset)
    name = "sarm" if isinstance(model, SARMModel) else "elapsed"
    if args.output_path is None and not Path(args.dataset).is_dir():
        raise DataError("a Hub dataset is never written into: give --output-path")
    path = args.output_path or dataset.root / f"{name}_progress.parquet"
    settings: dict[str, Any] = {"episodes": args.episodes}
    if isinstance(model, SARMModel):
        settings |= {"encoder": model.frozen.name, "precision": args.precision}
    if path.exists() and not args.overwrite:
        _require_same(path, provenance(model, dataset, args.model, **options, **settings))
    unread: list[str] = []
    with bars() as bar:
        tick = bar("label")
        if isinstance(model, SARMModel):
            total = dataset.total_frames * len(model.config.cameras)
            model.cache = feature_cache(dataset, model.frozen, keep=not args.no_cache, tick=_over_all(bar("encode frames"), total))
        labelled = label(
            model, dataset, path, model_path=args.model, on_progress=tick,
            on_unreadable=lambda episode, error: unread.append(f"episode {episode.index} is left unknown: {error}"),
            options=options, **settings,
        )  # fmt: skip
    for line in unread:
        warn(line)
    unknown = unknown_frames(labelled)
    curve = labelled.curve()
    if args.json:
        numbers = {"path": str(path), "frames": len(curve), "episodes": len(dataset), "unknown_frames": sum(unknown.values())}
        say(json_module.dumps(numbers))
    else:
        mean = f"{np.nanmean(curve):.3f}" if not np.isnan(curve).all() else "-"
        table("progress", ("episodes", "frames", "unknown", "mean"), [(len(dataset), len(curve), sum(unknown.values()), mean)])
        say(f"progress: {path}")
    if unknown:
        warn(f"{sum(unknown.values())} frames have no progress, in episodes {', '.join(map(str, list(unknown)[:10]))}")
    return 1 if unknown else 0
