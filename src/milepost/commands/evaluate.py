"""Compare a progress file with the truth (or the annotations) of its dataset, beside a clock."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from milepost.commands.options import parse_episodes, progress_file, require_dataset
from milepost.console import bars, say, table
from milepost.evaluate import EpisodeScore, failure_table, score_episode, summarise, summary_table, truth_of
from milepost.lerobot import open_dataset
from milepost.models import ElapsedModel
from milepost.store import METADATA_PREFIX, ProgressTable, read_progress
from milepost.types import DataError


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    progress: Annotated[Path | None, tyro.conf.arg(aliases=["--progress-file"])] = None
    """Progress file; default: the one beside the dataset."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    episodes: str | None = None
    """Episodes to compare, such as the held-out ones; default: all in the file."""
    seed: int = 0
    """Of the bootstrap."""
    json: bool = False


def _warn_of_training_episodes(progress: ProgressTable, dataset: str, episodes: set[int]) -> None:
    """A model is good on what it learnt from; its evaluation.json, if it can be found, says what that was."""
    record = Path(progress.metadata.get(f"{METADATA_PREFIX}model_path", "")) / "evaluation.json"
    if not record.is_file():
        return
    about = json_module.loads(record.read_text(encoding="utf-8"))
    learnt = episodes & {*about.get("train_episodes", ()), *about.get("validation_episodes", ())}
    if learnt and about.get("dataset") == dataset:
        held = ",".join(map(str, about.get("held_out", ())))
        say(f"{len(learnt)} of these {len(episodes)} episodes taught this model; those it never saw: --episodes {held or '(none)'}")


def main(args: Args) -> int:
    dataset = open_dataset(args.dataset, episodes=parse_episodes(args.episodes))
    path = progress_file(dataset, args.progress)
    progress = read_progress(path)
    require_dataset(path, progress, dataset)
    stages = dataset.stages.get(args.head_mode)
    scores: dict[str, list[EpisodeScore]] = {path.stem.removesuffix("_progress"): [], "elapsed": []}
    sources, labelled, clock = set(), set(progress.episode_index.tolist()), ElapsedModel()
    with bars() as bar:
        tick = bar("compare")
        for i in range(len(dataset)):
            episode = dataset[i]
            if episode.index in labelled:
                sources.add(truth_of(episode, stages, args.head_mode).source)
                curve = progress.progress(episode.index, episode.length, args.head_mode)
                for rows, one in zip(scores.values(), (curve, clock.predict(episode)), strict=True):
                    rows.append(score_episode(one, episode, stages, args.head_mode))
            tick(i + 1, len(dataset))
    if not next(iter(scores.values())):
        raise DataError(f"{path} has none of these episodes")
    summaries = {name: summarise(rows, np.random.default_rng(args.seed)) for name, rows in scores.items()}
    if args.json:
        say(json_module.dumps({name: summary.to_dict() for name, summary in summaries.items()}))
        return 0
    _warn_of_training_episodes(progress, dataset.name, {score.episode for score in next(iter(scores.values()))})
    count = len(next(iter(scores.values())))
    table(f"{count} episodes against: {', '.join(sorted(sources))} (95 % intervals)", *summary_table(summaries))
    if next(iter(summaries.values())).failures:
        table("where failures end (final progress)", *failure_table(summaries))
    return 0
