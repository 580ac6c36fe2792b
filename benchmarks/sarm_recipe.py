"""Our SARM recipe against LeRobot's, and ours with one thing changed at a time: same data, split, steps and network size, several seeds.

    python benchmarks/sarm_recipe.py DATASET [--seeds 0 1 2] [--steps 400] [--only NAME ...] [--out results.jsonl]
    python benchmarks/sarm_recipe.py --table [--out results.jsonl]

DATASET is made by `milepost simulate` (or is the `dataset` folder of a demo). A seed decides the split, the initial weights and the
samples; every variant of a seed has the same split and features. Each finished (variant, seed) is a line of --out, so an interrupted
run goes on where it stopped; all variants of a seed come before the next seed. --table prints the tables of docs/sarm_recipe.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lerobot_recipe import recipe
from milepost.core.types import Episode, Progress
from milepost.datasets.reader import LeRobotDataset, open_dataset
from milepost.encoders.features import FeatureCache
from milepost.encoders.pixels import PixelImages
from milepost.metrics.evaluation import EpisodeScore, score_episode
from milepost.metrics.scores import final
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import choose, with_statistics
from milepost.models.sarm.settings import PRESETS
from milepost.models.training.config import TrainConfig
from milepost.models.training.episodes import split
from milepost.models.training.loop import fit, run_key

SMALL_SARM, SMALL_TRAIN = PRESETS["small"]
OURS: dict[str, Any] = {
    "annotation_mode": "sparse_only", "gap_s": 0.1, "hidden_dim": SMALL_SARM.hidden_dim, "num_layers": SMALL_SARM.num_layers,
    "num_heads": SMALL_SARM.num_heads, "dropout": SMALL_SARM.dropout, "encoder": "pixels", "image_dim": SMALL_SARM.image_dim,
    "text_dim": SMALL_SARM.text_dim,
}  # fmt: skip
"""The published recipe as `SARMConfig` has it (nine frames, rewind 0.8 up to 4 steps, wrong instruction 0.2), the network small."""
LEROBOT: dict[str, Any] = {**OURS, "window": "centred", "attention": "lerobot", "decode": "argmax"}
"""The same as LeRobot 0.6.1 does it, restated in our config; its samples and its loss are in `lerobot_recipe.py`."""
DEMO: dict[str, Any] = {
    name: getattr(SMALL_SARM, name) for name in ("n_obs_steps", "rewind_probability", "max_rewind_steps", "feature_noise", "unfinished")
}
"""What the demo changes for speed and for this simulator."""


@dataclass(frozen=True)
class Variant:
    """One model to train: what it is, its learning rate, whose samples and loss it learns with, and another way to decode the same weights,
    shown as a row of its own."""

    config: Mapping[str, Any]
    lr: float = SMALL_TRAIN.lr
    samples: Literal["own", "lerobot"] = "own"
    loss: Literal["masked", "lerobot"] = "masked"
    also: tuple[str, str] | None = None
    """(row, decode)"""


VARIANTS = {
    "ours": Variant(OURS, also=("argmax decoding", "argmax")),
    "LeRobot's": Variant(LEROBOT, samples="lerobot", loss="lerobot"),
    "the demo's": Variant({**OURS, **DEMO}),
    "no rewind": Variant({**OURS, "rewind_probability": 0.0, "max_rewind_steps": 0}),
    "no wrong instructions": Variant({**OURS, "language_perturbation_probability": 0.0}),
    "LeRobot's loss": Variant(OURS, loss="lerobot"),
    "centred window": Variant({**OURS, "window": "centred"}),
    "LeRobot's samples": Variant(OURS, samples="lerobot"),
    "LeRobot's, lr 3e-4": Variant(LEROBOT, lr=3e-4, samples="lerobot", loss="lerobot"),
    "unfinished runs taught as 0": Variant({**OURS, "unfinished": "zero"}),
    "LeRobot's, our samples": Variant(LEROBOT, loss="lerobot"),
    "LeRobot's attention": Variant({**OURS, "attention": "lerobot"}),
    "centred window, LeRobot's attention": Variant({**OURS, "window": "centred", "attention": "lerobot"}),
    "ours, lr 3e-4": Variant(OURS, lr=3e-4),
}
CLOCK = "a clock"
ROWS = [row for name, variant in VARIANTS.items() for row in (name, *(variant.also or ())[:1])] + [CLOCK]
"""Row names in the order of the table."""
HOLDOUT, BATCH = 0.34, 32
CALLED = 0.9
"""A final progress that calls an attempt a success. No failed attempt of the simulator truly gets there."""


# Training and asking


@dataclass(frozen=True, eq=False)
class Bench:
    """The dataset, read and reduced once."""

    dataset: LeRobotDataset
    episodes: Sequence[Episode]
    reduced: Mapping[int, np.ndarray]

    @classmethod
    def load(cls, path: str) -> Bench:
        dataset = open_dataset(path)
        episodes = [dataset[i] for i in range(len(dataset))]
        reduced = FeatureCache(None, "", encoder=PixelImages()).stream(episodes, dataset.cameras)
        return cls(dataset, episodes, {episode.index: array for episode, array in zip(episodes, reduced, strict=True)})

    def config(self, changes: Mapping[str, Any]) -> SARMConfig:
        """Without the statistics, which belong to a split."""
        first, *more = self.dataset.cameras
        return SARMConfig(image_key=first, more_image_keys=tuple(more), **changes)

    def key(self, variant: Variant, seed: int, steps: int) -> str:
        """Changes when a finished run no longer answers the question."""
        config, own = dataclasses.asdict(self.config(variant.config)), (variant.samples, variant.loss)
        return run_key(self.dataset.fingerprint, config, own, variant.lr, BATCH, seed, steps)

    def train(self, variant: Variant, seed: int, steps: int) -> tuple[SARMModel, list[Episode], dict[str, Any]]:
        """(model, held-out episodes, what it was trained on). The same draws as `train_sarm`."""
        rng = np.random.default_rng(seed)
        learn, held = split(self.episodes, HOLDOUT, rng)
        config = self.config(variant.config)
        usable, left_out = choose(learn, config)
        assert not left_out, "every recipe must train on the same episodes"
        config = with_statistics(config, usable, self.dataset.stages)
        torch.manual_seed(seed)
        reduced = [self.reduced[e.index] for e in usable]
        model, sample, rows = recipe(config, usable, reduced, rng, samples=variant.samples, loss=variant.loss)
        train = TrainConfig(
            steps=steps, seed=seed, lr=variant.lr, batch_size=BATCH, weight_decay=SMALL_TRAIN.weight_decay, checkpoint_s=1e9
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            fit(model, sample, config=train, folder=Path(folder), key="", on_progress=lambda done, total: None)
        return model, held, {"train_episodes": len(usable), "train_frames": len(rows)}

    def ask(self, predict: Callable[[Episode], Progress], held: Sequence[Episode]) -> dict[str, list]:
        """Columns over the held-out episodes; `wrong` is where a success ends under the next task's instruction."""
        tasks = sorted({episode.task for episode in self.episodes})
        scenes = {scene: n for n, scene in enumerate(sorted({scene_of(episode) for episode in self.episodes}))}
        rows = []
        for episode in held:
            score: EpisodeScore = score_episode(predict(episode).main, episode, self.dataset.stages["sparse"])
            other = dataclasses.replace(episode, task=tasks[(tasks.index(episode.task) + 1) % len(tasks)])
            wrong = final(predict(other).value) if episode.success else np.nan
            numbers = (score.error, score.stage_accuracy, score.final, score.true_final, wrong)
            rows.append((scenes[scene_of(episode)], score.kind, bool(episode.success), *(round(float(x), 4) for x in numbers)))
        names = ("scene", "kind", "success", "error", "stage_accuracy", "final", "true_final", "wrong")
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    def run(self, name: str, seed: int, steps: int) -> list[dict[str, Any]]:
        """One variant and seed as lines of the result file."""
        variant = VARIANTS[name]
        start = time.monotonic()
        model, held, facts = self.train(variant, seed, steps)
        trained = time.monotonic()
        model.eval()
        features = {episode.index: model.project(self.reduced[episode.index]) for episode in held}
        facts |= {"seed": seed, "steps": steps, "lr": variant.lr, "key": self.key(variant, seed, steps)}
        lines = []
        for row, decode in ((name, model.config.decode), *([variant.also] if variant.also else [])):
            model.config = dataclasses.replace(model.config, decode=decode)
            columns = self.ask(lambda episode: model.predict_features(episode, features[episode.index]), held)
            lines.append({"row": row, **facts, "train_s": round(trained - start, 1), **columns})
        if name == "ours":
            lines.append({"row": CLOCK, **facts, "train_s": 0.0, **self.ask(ElapsedModel().predict, held)})
        return lines


def scene_of(episode: Episode) -> str:
    """The start scene, which a split never divides and an interval resamples as one."""
    return f"{episode.task} {episode.facts['scene']}"


def compute(args: argparse.Namespace) -> None:
    """Whatever is not in the result file yet."""
    out = Path(args.out)
    done = {line["key"] for line in read(out)}
    bench = Bench.load(args.dataset)
    names = [name for name in VARIANTS if not args.only or name in args.only]
    for seed in args.seeds:
        for name in names:
            if bench.key(VARIANTS[name], seed, args.steps) in done:
                continue
            lines = bench.run(name, seed, args.steps)
            with out.open("a") as file:  # one write, so that what one training gave is there as a whole or not at all
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            print(f"{time.strftime('%H:%M:%S')} seed {seed} {name}: {lines[0]['train_s']:.0f} s", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a result file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


# Tables. Every statistic takes weights (D, N), one row of weights a bootstrap draw and the first row all ones, and gives (D,).


def weighted_mean(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Over the known values."""
    known = ~np.isnan(value)
    return weight[:, known] @ value[known] / weight[:, known].sum(axis=1)


def weighted_auc(value: np.ndarray, success: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """How often a success ends above a failure, ties counting half."""
    gap = value[success][:, None] - value[~success][None, :]
    good, bad = weight[:, success], weight[:, ~success]
    return ((good @ (0.5 + 0.5 * np.sign(gap))) * bad).sum(axis=1) / (good.sum(axis=1) * bad.sum(axis=1))


def measures(line: Mapping[str, Any], weight: np.ndarray) -> dict[str, np.ndarray]:
    """Every number of one variant and seed."""
    success, end, truth, wrong = (np.array(line[name]) for name in ("success", "final", "true_final", "wrong"))
    error, stage = np.array(line["error"]), np.array(line["stage_accuracy"])
    good, bad = weight[:, success], weight[:, ~success]
    return {
        "error": weighted_mean(error[success], good),
        "stage accuracy": weighted_mean(stage[success], good),
        "AUC": weighted_auc(end, success, weight),
        "error on failures": weighted_mean(error[~success], bad),
        "overclaim": weighted_mean(np.maximum(0, end - truth)[~success], bad),
        "missed successes": weighted_mean((end < CALLED)[success].astype(float), good),
        "wrong instruction": weighted_mean(wrong, weight),
    }


@dataclass(frozen=True, eq=False)
class Results:
    """Lines by row and seed, and one set of bootstrap draws over start scenes for all of them, which makes differences paired."""

    lines: Mapping[str, Mapping[int, Mapping[str, Any]]]
    draws: np.ndarray

    @classmethod
    def load(cls, path: Path, draws: int = 2000) -> Results:
        lines: dict[str, dict[int, dict]] = {row: {} for row in ROWS}
        for line in read(path):
            lines.setdefault(line["row"], {})[line["seed"]] = line
        lines = {row: seeds for row, seeds in lines.items() if seeds}
        scenes = 1 + max(max(line["scene"]) for seeds in lines.values() for line in seeds.values())
        counts = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), size=draws)
        return cls(lines, np.concatenate([np.ones((1, scenes)), counts]))

    def of(self, row: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Measure -> (seeds, draws)."""
        each = [measures(self.lines[row][seed], self.draws[:, self.lines[row][seed]["scene"]]) for seed in seeds]
        return {name: np.stack([one[name] for one in each]) for name in each[0]}

    def values(self) -> str:
        """Every row's numbers with their intervals."""
        table = []
        for row, seeds in self.lines.items():
            found = self.of(row, sorted(seeds))
            table.append((row, len(seeds), *(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in map(estimate, found.values()))))
        return markdown(("", "seeds", *found), table)

    def differences(self, base: str) -> str:
        """Every row minus the base, on the seeds both have. Bold: the interval leaves 0 out and all seeds agree."""
        table = []
        for row, seeds in self.lines.items():
            both = sorted(seeds.keys() & self.lines[base].keys())
            if row == base or not both:
                continue
            here, there, cells = self.of(row, both), self.of(base, both), []
            for name in here:
                gap = here[name] - there[name]
                mean, low, high = estimate(gap)
                agree = len(set(np.sign(gap[:, 0]))) == 1 and not low <= 0 <= high
                text = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
                cells.append(f"**{text}**" if agree else text)
            table.append((row, len(both), *cells))
        return markdown((f"minus {base}", "seeds", *here), table)

    def failures(self) -> str:
        """By kind of failure: mean and highest final progress; how many attempts were called a success."""
        first = next(iter(self.lines.values()))
        kinds = sorted(
            {kind for line in first.values() for kind, success in zip(line["kind"], line["success"], strict=True) if not success}
        )

        def cells(seeds: Mapping[int, Mapping[str, Any]], column: str) -> list[str]:
            ends = {k: [e for s in seeds.values() for e, kind in zip(s[column], s["kind"], strict=True) if kind == k] for k in kinds}
            called = {kind: f"{sum(e >= CALLED for e in ends[kind])} of {len(ends[kind])}" for kind in kinds}
            return [f"{np.mean(ends[kind]):.3f}, at most {max(ends[kind]):.2f}; {called[kind]}" for kind in kinds]

        table = [(row, *cells(seeds, "final")) for row, seeds in self.lines.items()]
        return markdown(("", *kinds), [*table, ("truth", *cells(first, "true_final"))])

    def by_seed(self) -> str:
        """The headline numbers of every seed: how far apart the seeds are."""
        names, table = ("error", "stage accuracy", "AUC", "overclaim", "wrong instruction"), []
        for row, seeds in self.lines.items():
            found = self.of(row, sorted(seeds))
            train = np.mean([line["train_s"] for line in seeds.values()])
            table.append((row, *(" ".join(f"{x:.3f}" for x in found[name][:, 0]) for name in names), f"{train:.0f}"))
        return markdown(("", *names, "train s"), table)


def estimate(found: np.ndarray) -> tuple[float, float, float]:
    """(seeds, draws) -> mean over seeds, and the 95 % interval of that mean."""
    mean = found.mean(axis=0)
    low, high = np.percentile(mean[1:], [2.5, 97.5])
    return float(mean[0]), float(low), float(high)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--out", default="results.jsonl")
    parser.add_argument("--table", action="store_true", help="print the tables from --out, train nothing")
    args = parser.parse_args()
    if not args.table and not args.dataset:
        parser.error("DATASET or --table is needed")
    if not args.table:
        compute(args)
    elif len(steps := {line["steps"] for line in read(Path(args.out))}) != 1:
        sys.exit(f"{args.out} must hold results of one number of steps, has {sorted(steps) or 'none'}")
    else:
        results = Results.load(Path(args.out))
        print(results.values(), results.differences("ours"), results.failures(), results.by_seed(), sep="\n\n")


if __name__ == "__main__":
    main()
