"""Write a model's progress for every frame of a dataset: `<dataset>/<model>_progress.parquet`, which LeRobot's RA-BC reads as it is."""

from __future__ import annotations

import dataclasses
import json as json_module
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from milepost.commands.belonging import parse_episodes
from milepost.commands.options import feature_cache, resolve_device, settle_model
from milepost.commands.topreward_options import TOPRewardOptions, open_topreward
from milepost.console import Tick, bars, ranges, say, table, warn
from milepost.labelling import label, left_unknown, provenance, unknown_frames
from milepost.lerobot import LeRobotDataset, open_dataset
from milepost.metrics import final
from milepost.models import load_model, model_kind
from milepost.models.sarm import SARMModel
from milepost.models.topreward import TOPRewardModel
from milepost.outputs import output_lock
from milepost.store import METADATA_PREFIX, ProgressTable, comparable, read_progress, unfinished
from milepost.types import DataError, RewardModel
from milepost.vlm import Engine, RemoteEngine

SARM_ALONE = ("head_mode", "stride", "encoder", "no_cache", "state_stats")


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder or Hub id; "topreward", zero-shot; or "elapsed", the clock."""
    topreward: Annotated[TOPRewardOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TOPRewardOptions)
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    """SARM: heads to write; with dense or both, both columns are there."""
    stride: int = 1
    """SARM: look at every N-th frame and the last; between them progress is interpolated."""
    encoder: str | None = None
    """SARM: instead of the encoder the model names, a folder or owner/name."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """SARM: do not keep the frames' features on disk, where they are in half precision, which moves progress by up to about 1e-3."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the networks compute in. auto: float32, and a VLM on a GPU bfloat16. SARM has no float16."""
    output_path: Path | None = None
    """Where to write; default: beside the dataset. A Hub dataset needs one."""
    episodes: str | None = None
    """Episodes to label, such as 0-9,12 or 0 1 2; default: all."""
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


def _finished(path: Path, wanted: Mapping[str, str], episodes: Sequence[int]) -> ProgressTable | None:
    """The file that is there, if it was made by the same model with the same options and lacks none of these episodes. DataError if it was
    made otherwise; the dataset may have changed if it was incomplete."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; --output-path takes the name of a file")
    there = read_progress(path)
    other = _differences({key.removeprefix(METADATA_PREFIX): value for key, value in there.metadata.items()}, wanted)
    unknown = {*unknown_frames(there), *(set(episodes) - set(there.episode_index.tolist()))} & set(episodes)
    if other and not (other == ["dataset"] and unknown):
        raise DataError(f"{path} was made with another {', '.join(other)}; use --overwrite or another --output-path")
    return None if other or unknown else there


def _require_same_run(path: Path, wanted: Mapping[str, str]) -> None:
    """DataError if an unfinished run is there that had another model or other options: what it has done would be thrown away."""
    begun = unfinished(path)
    if begun and (other := _differences(begun, wanted)):
        raise DataError(
            f"{path} was begun with another {', '.join(other)}, and is unfinished; use --overwrite to begin anew, or another --output-path"
        )


def _differences(there: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """What two provenances differ in, as a user calls it."""
    named = {"model_path": "model", "weights_sha256": "weights", "config": "config", "dataset_fingerprint": "dataset"}
    then, wanted = comparable(there, wanted), comparable(wanted, wanted)
    other = [words for key, words in named.items() if then.get(key) != wanted[key]]
    before, now = then["settings"], wanted["settings"]
    flags = {*Args.__dataclass_fields__, *TOPRewardOptions.__dataclass_fields__}
    changed = ["head_mode" if name == "heads" else name for name in now if before.get(name) != now[name]]
    return other + [f"--{name.replace('_', '-')}" if name in flags else name for name in changed]


def _over_all(tick: Tick, total: int) -> Tick:
    """One bar over the frames of all episodes, told of one episode after the other."""
    done, last = 0, 0

    def count(now: int, all_of_it: int) -> None:
        nonlocal done, last
        done, last = done + now - (last if now > last else 0), now if now < all_of_it else 0
        tick(min(done, total), total)

    return count


def _refuse_strangers(args: Args, kind: str) -> None:
    """ValueError for options that mean nothing to this kind of model."""
    defaults = Args("", "")
    given = [name for name in SARM_ALONE if getattr(args, name) != getattr(defaults, name)] if kind != "sarm" else []
    if kind != "topreward":
        given += [name for name in args.topreward.changed() if (kind, name) != ("sarm", "task")]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} means nothing to a model of type {kind}")


def _opened(args: Args, kind: str, dataset: LeRobotDataset) -> tuple[RewardModel, dict[str, Any], dict[str, Any]]:
    """The model, what its `predict` takes, and what else to write down."""
    if kind == "elapsed":
        return load_model(args.model), {}, {}
    if kind == "topreward":
        asker = open_topreward(args.model, args.topreward, dataset, device=args.device, precision=args.precision)
        return asker, {"num_prefixes": args.topreward.num_prefixes}, _vlm(asker.engine)
    if args.precision == "float16":
        raise ValueError("SARM computes in float32 or bfloat16, not in float16")
    precision = "float32" if args.precision == "auto" else args.precision
    model = load_model(args.model, resolve_device(args.device), encoder=args.encoder, precision=precision)
    assert isinstance(model, SARMModel)
    settle_model(model, args.state_stats, dataset.showing(model.config.cameras))
    made = {"encoder": model.frozen.name, "precision": precision}
    task = {} if args.topreward.task is None else {"task": args.topreward.task}
    return model, {"heads": _heads(model, args.head_mode), "stride": args.stride, **task}, made


def _vlm(engine: Engine | RemoteEngine) -> dict[str, str]:
    """Which VLM is asked, and how. A server shows each frame as an image of its own, and does not say what it computes in."""
    if isinstance(engine, RemoteEngine):
        return {"vlm": engine.name, "base_url": engine.config.base_url, "frames_as": "images"}
    made = {"vlm": engine.name, "vlm_commit": engine.commit, "vlm_weights": engine.fingerprint}
    return {**made, "frames_as": "video", "precision": engine.precision}


@contextmanager
def _closed_after(model: RewardModel) -> Iterator[None]:
    """Whatever happens, a server's connections are closed, and what it was asked is said."""
    try:
        yield
    finally:
        if isinstance(model, TOPRewardModel) and isinstance(model.engine, RemoteEngine):
            model.engine.close()
            for line in (model.engine.usage, *model.engine.notes):
                warn(f"server: {line}")


def main(args: Args) -> int:
    if args.stride < 1:
        raise ValueError(f"--stride must be at least 1, got {args.stride}")
    kind = model_kind(args.model)
    _refuse_strangers(args, kind)
    dataset = open_dataset(args.dataset, revision=args.revision, episodes=parse_episodes(args.episodes))
    if args.output_path is None and not dataset.is_local:
        raise DataError("a Hub dataset is never written into: give --output-path")
    dataset = dataset.showing([args.topreward.image_key or ""])
    model, options, made = _opened(args, kind, dataset)
    if isinstance(model, SARMModel):
        dataset = dataset.showing(model.config.cameras)
    threshold = -math.inf
    if isinstance(model, TOPRewardModel):  # it is no part of the curve: a file need not be made anew for it
        threshold = model.config.success_threshold
        model.config = dataclasses.replace(model.config, success_threshold=-math.inf)
    path = args.output_path or dataset.root / f"{kind}_progress.parquet"
    made_by = provenance(model, dataset, args.model, **options, **made)
    with output_lock(path):
        done = None if args.overwrite else _labelled_already(path, made_by, dataset.episode_indices)
        if done is not None:
            warn("labelled already, by this model with these options: nothing to do")
        labelled = done or _label(args, model, dataset, path, options, made)
    return _report(args, path, labelled, _successes(threshold, labelled), dataset.episode_indices)


def _labelled_already(path: Path, made_by: Mapping[str, str], episodes: Sequence[int]) -> ProgressTable | None:
    """The finished file, None if there is work to do. DataError if a file or an unfinished run is there that would be lost."""
    done = _finished(path, made_by, episodes) if path.exists() else None
    if done is None:
        _require_same_run(path, made_by)
    return done


def _label(
    args: Args, model: RewardModel, dataset: LeRobotDataset, path: Path, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> ProgressTable:
    unread: list[str] = []
    with _closed_after(model), bars() as bar:
        tick = bar("label")
        if isinstance(model, SARMModel):
            total = dataset.total_frames * len(model.config.cameras)
            model.cache = feature_cache(dataset, model.frozen, keep=not args.no_cache, tick=_over_all(bar("encode frames"), total))
        labelled = label(
            model, dataset, path, model_path=args.model, anew=args.overwrite, on_progress=tick,
            on_unreadable=lambda number, error: unread.append(left_unknown(number, error)), options=options, **settings,
        )  # fmt: skip
    for line in unread:
        warn(line)
    return labelled


def _successes(threshold: float, labelled: ProgressTable) -> dict[int, bool] | None:
    """Episode -> are its last scores above the threshold; None if there is none. An episode without scores is not in it."""
    if not math.isfinite(threshold):
        return None
    return {number: end > threshold for number, end in _ends(labelled).items()}


def _ends(labelled: ProgressTable) -> dict[int, float]:
    """Episode -> the mean of its last three scores, where it has any."""
    raw, numbers = labelled.raws["logprob"], np.unique(labelled.episode_index)
    ends = {int(number): final(raw[labelled.episode_index == number]) for number in numbers}
    return {number: end for number, end in ends.items() if not math.isnan(end)}


def _report(args: Args, path: Path, labelled: ProgressTable, successes: Mapping[int, bool] | None, asked_for: Sequence[int]) -> int:
    """What came out, in a table or as JSON; 1 if frames of the episodes asked for are left unknown."""
    unknown, curve = {n: count for n, count in unknown_frames(labelled).items() if n in set(asked_for)}, labelled.curve()
    episodes = len(np.unique(labelled.episode_index))
    if args.json:
        numbers: dict[str, Any] = {"path": str(path), "frames": len(curve), "episodes": episodes, "unknown_frames": sum(unknown.values())}
        if successes is not None:
            numbers["successes"] = [number for number, success in successes.items() if success]
        say(json_module.dumps(numbers))
    else:
        mean = f"{np.nanmean(curve):.3f}" if not np.isnan(curve).all() else "-"
        columns, row = ["episodes", "frames", "unknown", "mean"], [episodes, len(curve), sum(unknown.values()), mean]
        if "logprob" in labelled.raws:
            ends = _ends(labelled)
            columns, row = [*columns, "mean final log P"], [*row, f"{np.mean(list(ends.values())):.3f}" if ends else "-"]
        table("progress", columns, [row])
        if successes is not None:
            say(f"above the success threshold: {sum(successes.values())} of {len(successes)} episodes")
        say(f"progress: {path}")
    if "logprob_bound" in labelled.raws:
        asked = ~np.isnan(labelled.raws["logprob_bound"])
        missing = int(np.isnan(labelled.raws["logprob"][asked]).sum())
        warn(
            f"to {missing} of the questions the server did not list the answer among its likeliest tokens: their score is NaN, and "
            "raw_logprob_bound says what it is at most"
        )
    if unknown:
        warn(f"{sum(unknown.values())} frames have no progress, in episodes {ranges(sorted(unknown))}")
    rowless = set(asked_for) - set(labelled.episode_index.tolist())  # their rows cannot be read, so they are not in the file
    return 1 if unknown or rowless else 0
