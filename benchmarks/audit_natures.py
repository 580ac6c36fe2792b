"""Are the audit's verdicts right? Models whose nature is known, several seeds, 8, 20 and 50 episodes: false alarms and misses counted.

    python benchmarks/audit_natures.py DATASET [--seeds 0 1 2 3 4] [--draws 20] [--out natures.jsonl] [--folder WORK]
    python benchmarks/audit_natures.py --table --out benchmarks/audit_natures.jsonl

DATASET is made by `milepost simulate` (or is the `dataset` folder of a demo). A seed decides the split, the initial weights, the labels'
shuffle and the edits. Audited are held-out episodes alone: up to 50 of each seed, and `--draws` random choices of 8 and of 20 among them.
Each finished (model, seed) is a line of --out, so an interrupted run goes on where it stopped. --table prints docs/audit.md's tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milepost.core import EditedFrames, Episode, Progress, Segment, reordered, with_images
from milepost.datasets import LeRobotDataset, open_dataset
from milepost.encoders import FeatureCache, PixelImages
from milepost.metrics import EpisodeCurves, audit_curves
from milepost.models import ElapsedModel, TOPRewardConfig, TOPRewardModel
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm
from milepost.progress import AuditConfig, audit, choose_episodes
from milepost.testing import ConstantModel, ListDataset, tiny_vlm

EXPECTED = {
    "SARM, staged": ("reward",),
    "SARM, single stage": ("reward",),
    "SARM, states alone": ("reward",),
    "the truth": ("reward",),
    "SARM, untrained": ("says nothing",),
    "SARM, labels of shuffled frames": ("says nothing", "follows nothing"),
    "a constant": ("says nothing",),
    "a clock": ("clock",),
    "SARM on the frame number": ("clock",),
    "random Qwen3-VL": ("says nothing", "clock"),
    "two thirds SARM, one third clock": ("partly a clock",),
}
"""Model -> the verdicts that are right for it. What learnt from shuffled frames knows no place in the task; yet its curve leaves zero as
soon as the window differs from the first frame, in whatever order: it may rise, but follows nothing. The answers of random weights drift
with the length of the video, up for one seed and not for another: a clock, or nothing."""
REPORTED = ("SARM, labels of other episodes",)
"""Models without a verdict that is right: their labels are wrong in detail and right on average, so they follow the frames all the same."""
SIZES = (8, 20, 50)
SILENT = "cannot be said"
"""The verdict that is neither right nor wrong; it is counted by itself."""
STEPS, HOLDOUT, MOST = 400, 0.34, 50
CONTROLS = (
    "frozen_first", "frozen_middle", "frozen_last", "shuffled", "reversed", "cut_50", "images_frozen", "states_frozen", "other_task",
)  # fmt: skip
"""What the verdicts need; robustness to light is another matter."""


class Wrapped:
    """A model behind a change of what it sees."""

    def __init__(self, model: Any, change: Callable[[Episode], Episode]) -> None:
        self.model, self.change = model, change

    def predict(self, episode: Episode, **options: Any) -> Progress:
        return self.model.predict(self.change(episode), **options)


class Truth:
    """An oracle: it knows which recorded frame each frame of a copy shows, and how far along that one was."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self.values = {episode.index: episode.columns["truth.progress"].astype(np.float32) for episode in episodes}
        self.tasks = {episode.index: episode.task for episode in episodes}

    def predict(self, episode: Episode) -> Progress:
        camera = next(iter(episode.cameras.values()))
        frames = camera.order if isinstance(camera, EditedFrames) else np.arange(episode.length)
        value = self.values[episode.index][frames]
        return Progress(episode.index, value if episode.task == self.tasks[episode.index] else np.zeros_like(value))


class Mixed:
    """Two thirds of one model and a third of another."""

    def __init__(self, one: Any, other: Any) -> None:
        self.models = one, other

    def predict(self, episode: Episode) -> Progress:
        values = [model.predict(episode).value for model in self.models]
        return Progress(episode.index, np.average(values, axis=0, weights=(2, 1)).astype(np.float32))


def black(episode: Episode) -> Episode:
    """Returns the episode with black images."""
    return with_images(episode, lambda images, frames: np.zeros_like(images))


def numbered(episode: Episode) -> Episode:
    """Returns the episode with the frame number, in seconds, as its only state, and black images."""
    return dataclasses.replace(black(episode), state=(np.arange(episode.length, dtype=np.float32) / episode.fps)[:, None])


def with_shuffled_frames(episodes: Sequence[Episode], rng: np.random.Generator) -> list[Episode]:
    """Returns the episodes with their frames in a random order and their labels as they were: nothing that is seen tells how far it is."""
    out = []
    for episode in episodes:
        copy = reordered(episode, rng.permutation(episode.length))
        columns = {name: column for name, column in episode.columns.items() if not name.startswith("truth.")}
        out.append(dataclasses.replace(copy, segments=episode.segments, columns=columns))
    return out


def with_labels_of_others(episodes: Sequence[Episode], rng: np.random.Generator) -> list[Episode]:
    """Returns the episodes, each with the stages of another one, stretched to its own length."""
    out = []
    for episode, other in zip(episodes, rng.permutation(len(episodes)), strict=True):
        giver = episodes[other]
        scale = episode.length / giver.length
        edges = [round(segment.start * scale) for segment in giver.segments["sparse"]] + [episode.length]
        segments = [
            Segment(segment.name, start, stop)
            for segment, start, stop in zip(giver.segments["sparse"], edges, edges[1:], strict=False)
            if stop > start
        ]
        columns = {name: column for name, column in episode.columns.items() if not name.startswith("truth.")}
        facts = {**episode.facts, "success": giver.success}
        out.append(dataclasses.replace(episode, segments={**episode.segments, "sparse": segments}, columns=columns, facts=facts))
    return out


class Seed:
    """The models of one seed, each made when it is asked for, and the held-out episodes."""

    def __init__(self, dataset: LeRobotDataset, episodes: Sequence[Episode], seed: int, folder: Path) -> None:
        self.dataset, self.episodes, self.seed, self.folder = dataset, episodes, seed, folder
        self.held_out: tuple[int, ...] = ()

    def train(self, name: str, episodes: Sequence[Episode], *, mode: str = "sparse_only", cached: bool = True) -> SARMModel:
        """Returns a SARM trained by the demo's recipe, or the one that an earlier run saved."""
        sarm, train = PRESETS["small"]
        first, *more = self.dataset.cameras
        sarm = dataclasses.replace(sarm, annotation_mode=mode, image_key=first, more_image_keys=tuple(more), gap_s=0.1)
        cache = FeatureCache(self.folder / "cache" if cached else None, self.dataset.fingerprint, encoder=PixelImages(sarm.text_dim))
        folder = self.folder / f"seed{self.seed}" / name
        if (folder / "held_out.json").is_file():
            self.held_out = tuple(json.loads((folder / "held_out.json").read_text()))
            return SARMModel.from_pretrained(folder).use_features(cache)
        train = dataclasses.replace(train, steps=STEPS // (2 if mode == "single_stage" else 1), seed=self.seed)
        trained = train_sarm(episodes, sarm, train, folder=folder, stages=self.dataset.stages, holdout=HOLDOUT, features=cache)
        self.held_out = trained.held_out
        (folder / "held_out.json").write_text(json.dumps(self.held_out))
        return trained.model.use_features(cache)

    def model(self, name: str) -> tuple[Any, Callable[[Episode], Episode]]:
        """Returns the model, and what its dataset looks like: the episodes as they are, or with the frame number as state."""
        same = lambda episode: episode  # noqa: E731
        staged = self.train("staged", self.episodes)
        if name == "SARM, single stage":
            return self.train("single", self.episodes, mode="single_stage"), same
        if name == "SARM, states alone":
            return Wrapped(self.train("states", [black(each) for each in self.episodes], cached=False), black), same
        if name == "SARM, labels of shuffled frames":
            return self.train("shuffled", with_shuffled_frames(self.episodes, np.random.default_rng(self.seed))), same
        if name == "SARM, labels of other episodes":
            return self.train("others", with_labels_of_others(self.episodes, np.random.default_rng(self.seed))), same
        if name == "SARM on the frame number":
            return self.train("numbered", [numbered(each) for each in self.episodes], cached=False), numbered
        if name == "random Qwen3-VL":
            vlm = tiny_vlm(Path(tempfile.mkdtemp()) / "vlm", self.seed)
            camera = self.dataset.cameras[0]
            return TOPRewardModel(TOPRewardConfig(vlm_name=str(vlm), image_key=camera, device="cpu")), same
        made = {
            "SARM, staged": lambda: staged,
            "the truth": lambda: Truth(self.episodes),
            "SARM, untrained": lambda: staged.untrained(self.seed),
            "a constant": lambda: ConstantModel(0.5),
            "a clock": ElapsedModel,
            "two thirds SARM, one third clock": lambda: Mixed(staged, ElapsedModel()),
        }
        return made[name](), same

    def curves(self, name: str) -> list[EpisodeCurves]:
        """Returns the model's curves over at most 50 held-out episodes and their copies, or those that an earlier run stored."""
        kept = self.folder / f"seed{self.seed}" / "curves" / name.replace(" ", "_")
        if (kept / "done").is_file():
            by_index = {each.index: each for each in self.episodes}
            return [stored_curves(path, by_index, self.seed) for path in sorted(kept.glob("episode_*.json"))]
        model, change = self.model(name)
        outcomes = {each.index: each.success for each in self.episodes if each.index in self.held_out}
        chosen = set(choose_episodes(outcomes, MOST))
        audited = ListDataset([change(episode) for episode in self.episodes if episode.index in chosen])
        options = {"num_prefixes": 8} if name == "random Qwen3-VL" else {}
        run = audit(model, audited, config=AuditConfig(controls=CONTROLS, seed=self.seed), options=options, folder=kept)
        (kept / "done").touch()
        return list(run.curves)


def stored_curves(path: Path, episodes: Mapping[int, Episode], seed: int) -> EpisodeCurves:
    """Returns the curves of one episode that an audit with this seed stored; a name in the file may say on what else a copy depends."""
    record, episode = json.loads(path.read_text()), episodes[int(path.stem.removeprefix("episode_"))]
    curves = {re.split("[,:] ", name)[0]: np.array(values, dtype=np.float32) for name, values in record["curves"].items()}  # null: NaN
    return EpisodeCurves(episode.index, episode.task, episode.success, curves.pop("real"), curves, seed, record["scaled"])


def verdicts(curves: Sequence[EpisodeCurves], seed: int, draws: int) -> dict[str, Counter[str]]:
    """Returns for each size how often each verdict came."""
    rng, by_index = np.random.default_rng(seed), {each.episode: each for each in curves}
    counts: dict[str, Counter[str]] = {}
    for size in SIZES:
        counts[str(size)] = Counter()
        for _ in range(draws if size < len(curves) else 1):
            shuffled = {int(index): by_index[int(index)].success for index in rng.permutation(sorted(by_index))}
            counts[str(size)][audit_curves([by_index[index] for index in choose_episodes(shuffled, size)], seed=seed).verdict] += 1
    return counts


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns Markdown: per model and size the proportion of right verdicts, and what the wrong ones were."""
    rows = ["| model | right verdict | " + " | ".join(f"{size} episodes" for size in SIZES) + " |", "|---|---|" + "---|" * len(SIZES)]
    misses, alarms, silent = Counter[int](), Counter[int](), Counter[int]()
    for name, right in {**EXPECTED, **dict.fromkeys(REPORTED, ())}.items():
        cells = []
        for size in SIZES:
            count: Counter[str] = sum((Counter(line["verdicts"][str(size)]) for line in lines if line["model"] == name), Counter())
            wrong = {verdict: n for verdict, n in count.items() if verdict not in right}
            if right:
                silent[size] += wrong.get(SILENT, 0)
                (alarms if right == ("reward",) else misses)[size] += sum(wrong.values()) - wrong.get(SILENT, 0)
            hits = count.total() - sum(wrong.values())
            cells.append(
                (f"{hits} of {count.total()}" if right else f"of {count.total()}")
                + "".join(f"; {n} {verdict}" for verdict, n in wrong.items())
            )
        rows.append(f"| {name} | {' or '.join(right)} | " + " | ".join(cells) + " |")
    ends = [
        f"{size} episodes: {alarms[size]} false alarms (a reward called something else), {misses[size]} misses, {silent[size]} {SILENT}"
        for size in SIZES
    ]
    return "\n".join([*rows, "", *ends])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("natures.jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("natures"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    if args.table and not lines:
        parser.error(f"{args.out} has no results")
    if not args.table:
        torch.set_num_threads(1)
        dataset = open_dataset(args.dataset)
        episodes = [dataset[i] for i in range(len(dataset))]
        done = {(line["model"], line["seed"]) for line in lines}
        for seed in args.seeds:
            models = Seed(dataset, episodes, seed, args.folder)
            for name in (name for name in (*EXPECTED, *REPORTED) if (name, seed) not in done):
                curves = models.curves(name)
                lines.append({"model": name, "seed": seed, "episodes": len(curves), "verdicts": verdicts(curves, seed, args.draws)})
                with args.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(lines[-1]), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
