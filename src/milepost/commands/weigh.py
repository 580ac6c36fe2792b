"""Turn progress into RA-BC sample weights, and say what they would do before anything is trained."""

from __future__ import annotations

import dataclasses
import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost.commands.options import progress_file
from milepost.console import say, table, warn
from milepost.lerobot import open_dataset
from milepost.plots import png, weights_figure
from milepost.store import atomic_path, is_ours, read_progress, write_weights
from milepost.types import DataError
from milepost.weights import RabcConfig, Weighed, suggested_kappa, weigh


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = None
    """LeRobot dataset, to find its progress file; a progress file alone is enough."""
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    output_path: Path | None = None
    """Where to write the weights; default: weights.parquet beside the progress file."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    chunk_size: int = 50
    """Action chunk of the policy to be trained, in frames: the horizon of the progress delta."""
    kappa: float = 0.01
    """Progress over the horizon above which a frame counts fully."""
    epsilon: float = 1e-6
    fallback_weight: float = 1.0
    """Weight of frames whose progress is unknown."""
    figure: Path | None = None
    """Also draw the deltas and the weights over an episode's time into this PNG."""
    overwrite: bool = False
    """Replace an output that something else made; weights of an earlier `weigh` are always replaced."""
    json: bool = False


def main(args: Args) -> int:
    if args.progress is None and args.dataset is None:
        raise DataError("give a dataset or --progress FILE")
    path = args.progress or progress_file(open_dataset(str(args.dataset)), None)
    config = RabcConfig(args.chunk_size, args.kappa, args.epsilon, args.fallback_weight)
    progress = read_progress(path)
    weighed = weigh(progress.index, progress.episode_index, progress.curve(args.head_mode), config=config)
    output = args.output_path or path.with_name("weights.parquet")
    if output.exists() and not args.overwrite and not is_ours(output):
        raise DataError(f"{output} was not written by milepost weigh; use --overwrite or another --output-path")
    made = {"progress_file": str(path), "head_mode": args.head_mode, "rabc": json_module.dumps(dataclasses.asdict(config))}
    write_weights(output, weighed.index, weighed.weight, made)
    if args.figure is not None:
        with atomic_path(args.figure) as temporary:
            temporary.write_bytes(png(weights_figure(weighed)))
    numbers = summary(weighed)
    if args.json:
        say(json_module.dumps(numbers | {"path": str(output), "warnings": advice(weighed)}))
        return 0
    table("RA-BC weights", ("what", "value"), [(name.replace("_", " "), f"{value:.4g}") for name, value in numbers.items()])
    for line in advice(weighed):
        warn(line)
    say(f"weights: {output}")
    return 0


def summary(weighed: Weighed) -> dict[str, float]:
    """The numbers LeRobot logs during training, known before it."""
    return {
        "frames": float(len(weighed.weight)),
        "delta_mean": weighed.delta_mean,
        "delta_std": weighed.delta_std,
        "kappa": weighed.config.kappa,
        "share_full": weighed.full,
        "share_soft": weighed.soft,
        "share_zero": weighed.zero,
        "share_unknown": weighed.unknown,
        "mean_weight": float(np.mean(weighed.weight)),
        "effective_share": weighed.effective,
    }


def advice(weighed: Weighed) -> list[str]:
    """What a user should know before training with these weights."""
    lines = []
    mean = float(np.mean(weighed.weight))
    if mean > 0.95:
        lines.append(
            f"mean weight is {mean:.2f}: kappa {weighed.config.kappa:g} is so low that this is plain behaviour cloning; "
            f"try --kappa {suggested_kappa(weighed):g} (the mean delta)"
        )
    if mean < 0.1:
        lines.append(f"mean weight is {mean:.2f}: almost nothing is left to learn from; lower --kappa, or look at the curves")
    if weighed.delta_mean <= 0:
        lines.append("the mean delta is not above 0: by this curve the demonstrations make no progress; look at it with milepost plot")
    if weighed.unknown:
        lines.append(f"{weighed.unknown:.1%} of the frames have no delta and get weight {weighed.config.fallback_weight:g}")
    return lines
