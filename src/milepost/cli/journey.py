"""The whole journey on simulated demonstrations: simulate, train, label, weigh, report.

Each step leaves its result on disk and is skipped when that result is there, so an interrupted demo goes on where it stopped.
Nothing that is reported was trained on: episodes are split by start scene.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milepost import datasets, encoders, figures, metrics, models, progress, sim, viewer, weights
from milepost.core import DataError, Episode, RewardModel, Stages, Tick, Ticks, later, read_json_object, read_text, write_text

MODES: dict[str, models.AnnotationMode] = {"sarm": "sparse_only", "sarm_single_stage": "single_stage"}
"""Model name -> annotation mode: with the true stages, and as one stage."""


@dataclass(frozen=True)
class DemoConfig:
    """What the demo does. `tasks` are simulated tasks; `successes` and `failures` are episodes a task."""

    tasks: tuple[str, ...] = sim.SimConfig.tasks
    successes: int = 48
    failures: int = 24
    holdout: float = 0.34
    steps: int = 700
    chunk_size: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What came out: one summary a model on held-out episodes, the ends under a wrong instruction, the weights, seconds by step."""

    summaries: Mapping[str, metrics.Summary]
    wrong: Mapping[str, metrics.Estimate]
    weighed: weights.WeightResult
    seconds: Mapping[str, float]
    report: Path
    problems: tuple[str, ...] = ()
    """What could not be put into the report."""


MADE = ("dataset", "dataset.partial", "models", "cache", "seconds.json", "report.html", "demo.json")
"""What a demo makes in its folder; the mark last."""


def remove_demo(folder: Path) -> None:
    """Removes a demo's own files and folders from its folder, and nothing else that is in it."""
    for name in MADE:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class Journey:
    """One demo in one folder."""

    def __init__(self, folder: Path, config: DemoConfig, on_stage: Callable[[str], Tick], *, workers: int = 2) -> None:
        """DataError if the folder holds a demo with other settings."""
        self.folder, self.config, self.on_stage, self.workers = folder, config, on_stage, workers
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / "demo.json"
        settings = json.dumps(dataclasses.asdict(config))
        if mark.exists() and read_text(mark) != settings:
            raise DataError(f"{folder} holds a demo with other settings; use --overwrite or another --output-dir")
        write_text(mark, settings)
        times = folder / "seconds.json"
        self.seconds: dict[str, float] = read_json_object(times) if times.is_file() else {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds to the seconds of a step, over interruptions."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - start
            write_text(self.folder / "seconds.json", json.dumps(self.seconds))

    def run(self) -> DemoResult:
        """All five steps."""
        dataset = self.simulate()
        reward_models = {name: self.train(name, mode, dataset) for name, mode in MODES.items()}
        tables = self.label(dataset, reward_models)
        weighed = self.weigh(dataset, tables["sarm"])
        return self.report(dataset, reward_models, tables, weighed)

    def simulate(self) -> datasets.LeRobotDataset:
        """`dataset/`: demonstrations with known truth, if not there yet."""
        root, config = self.folder / "dataset", self.config
        if not root.exists():
            with self.timed("simulate"):
                simulation = sim.SimConfig(config.tasks, sim.episodes_by_kind(config.successes, config.failures), seed=config.seed)
                sim.make_dataset(root, simulation, workers=self.workers, on_progress=Ticks(self.on_stage))
        return datasets.open_dataset(root)

    def train(self, name: str, mode: models.AnnotationMode, dataset: datasets.LeRobotDataset) -> models.SARMModel:
        """`models/<name>/`: SARM on the training scenes; the other scenes are named in its evaluation.json."""
        folder = self.folder / "models" / name
        cache = encoders.FeatureCache(
            self.folder / "cache", dataset.fingerprint, encoder=encoders.PixelImages(models.PRESETS["small"][0].text_dim),
            on_frames=later(self.on_stage, f"{name}: read frames"),
        )  # fmt: skip
        if not (folder / "evaluation.json").is_file():
            sarm, train = models.PRESETS["small"]
            first, *more = dataset.cameras
            sarm = dataclasses.replace(sarm, annotation_mode=mode, image_key=first, more_image_keys=tuple(more), gap_s=0.1)
            steps = self.config.steps if mode != "single_stage" else self.config.steps // 2
            train = dataclasses.replace(train, steps=steps, seed=self.config.seed)
            episodes = [dataset[i] for i in range(len(dataset))]
            with self.timed(f"train {name}"):
                trained = models.train_sarm(
                    episodes, sarm, train, folder=folder, stages=dataset.stages, holdout=self.config.holdout,
                    features=cache, on_stage=lambda part: self.on_stage(f"{name}: {part}"),
                )  # fmt: skip
                held = [episode for episode in episodes if episode.index in trained.held_out]
                tick = self.on_stage(f"{name}: evaluate")
                models.save_card(
                    folder, trained, dataset.name, models.evaluate_held_out(trained.model, held, on_progress=tick, seed=self.config.seed)
                )
        return models.SARMModel.from_pretrained(folder).use_features(cache)

    def held_out(self) -> list[int]:
        """Episode numbers never trained on; the same for both models, which share the split."""
        return json.loads((self.folder / "models" / "sarm" / "evaluation.json").read_text())["held_out"]

    def label(self, dataset: datasets.LeRobotDataset, reward_models: Mapping[str, models.SARMModel]) -> dict[str, progress.ProgressTable]:
        """`dataset/<name>_progress.parquet` of both models and of the clock."""
        tables = {}
        everyone: dict[str, RewardModel] = {**reward_models, "elapsed": models.ElapsedModel()}
        for name, model in everyone.items():
            path = dataset.root / f"{name}_progress.parquet"
            if not path.is_file():
                with self.timed("label"):
                    source = str(self.folder / "models" / name) if name in reward_models else name
                    progress.label(model, dataset, path, model_path=source, on_progress=self.on_stage(f"label: {name}"))
            tables[name] = progress.read_progress(path)
        return tables

    def weigh(self, dataset: datasets.LeRobotDataset, table: progress.ProgressTable) -> weights.WeightResult:
        """`dataset/weights.parquet`, with kappa at the mean delta."""
        with self.timed("weigh"):
            columns = (table.index, table.episode_index, table.values())
            config = weights.RabcConfig(chunk_size=self.config.chunk_size)
            kappa = weights.suggested_kappa(weights.weigh(*columns, config=config))
            weighed = weights.weigh(*columns, config=dataclasses.replace(config, kappa=kappa))
            made = {"progress_file": "sarm_progress.parquet"}
            weights.SampleWeights.of(weighed).save(dataset.root / "weights.parquet", weighed.config, made)
        return weighed

    def report(
        self,
        dataset: datasets.LeRobotDataset,
        reward_models: Mapping[str, models.SARMModel],
        tables: Mapping[str, progress.ProgressTable],
        weighed: weights.WeightResult,
    ) -> DemoResult:
        """`report.html`: tables, and held-out episodes to be played."""
        with self.timed("report"):
            held = set(self.held_out())
            episodes = [episode for episode in (dataset[i] for i in range(len(dataset))) if episode.index in held]
            stages = dataset.stages["sparse"]
            summaries = {name: self.summary(table, episodes, stages) for name, table in tables.items()}
            wrong = self.wrong_instruction(reward_models["sarm"], episodes)
            path = self.folder / "report.html"
            result = DemoResult(summaries, wrong, weighed, self.seconds, path)
            chosen = one_of_each_kind(episodes)
            sections = [*tables_of(result), *links_of(chosen)]
            words = figures.report_fragment(
                title="How far along is the task?", lead=lead_of(result), facts=self.facts(dataset, held), sections=sections
            )
            problems = self.write_page(path, dataset, tables, weighed, [episode.index for episode in chosen], words)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return dataclasses.replace(result, problems=tuple(problems))

    def write_page(
        self,
        path: Path,
        dataset: datasets.LeRobotDataset,
        tables: Mapping[str, progress.ProgressTable],
        weighed: weights.WeightResult,
        episodes: list[int],
        words: str,
    ) -> list[str]:
        """The report, with these episodes as `milepost view` shows them. Answers what could not be put into it."""
        reward_models = {name: viewer.Model(dataset.root / f"{name}_progress.parquet", table) for name, table in tables.items()}
        path = dataset.root / "weights.parquet"
        weight_rows = path, progress.by_row(path, weighed.index, weighed.weight, dataset)
        review = viewer.Review(dataset, reward_models, marks=viewer.Marks(viewer.marks_file(dataset), dataset), weights=weight_rows)
        films = viewer.VideoCache(self.folder / "cache" / "films", self.workers)
        try:
            tick = self.on_stage("report: films")
            return viewer.export_html(review, path, episodes=episodes, films=films, report=words, title="milepost demo", tick=tick)
        finally:
            films.close()
            review.close()

    def summary(self, table: progress.ProgressTable, episodes: Sequence[Episode], stages: Stages) -> metrics.Summary:
        """One model's curves on the held-out episodes."""
        scores = []
        for episode in episodes:
            scores.append(metrics.score_episode(table.curve(episode.index, episode.length), episode, stages))
        return metrics.summarise(scores, np.random.default_rng(self.config.seed))

    def wrong_instruction(self, model: models.SARMModel, episodes: Sequence[Episode]) -> dict[str, metrics.Estimate]:
        """Per task: where held-out successes end when the model is told to look for another task (every other one in turn)."""
        tasks = sorted({episode.task for episode in episodes})
        tick, good = self.on_stage("wrong instruction"), [e for e in episodes if e.success]
        ends: dict[str, list[float]] = {task: [] for task in tasks}
        for done, episode in enumerate(good):
            others = [dataclasses.replace(episode, task=task) for task in tasks if task != episode.task]
            ends[episode.task] += [metrics.final(model.predict(other).value) for other in others]
            tick(done + 1, len(good))
        rng = np.random.default_rng(self.config.seed)
        return {task: metrics.mean_estimate(values, rng) for task, values in ends.items() if values}

    def facts(self, dataset: datasets.LeRobotDataset, held: set[int]) -> list[tuple[str, str]]:
        """The lines under the report's title."""
        total = sum(self.seconds.values())
        return [
            ("dataset", f"{len(dataset)} simulated demonstrations, {dataset.total_frames} frames, {len(dataset.tasks)} tasks"),
            ("cameras", ", ".join(dataset.cameras)),
            ("held out", f"{len(held)} episodes whose start scene no model was trained on"),
            ("time", f"{total:.0f} s: " + ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.seconds.items())),
        ]


def lead_of(result: DemoResult) -> str:
    """The finding in two sentences, from the numbers."""
    sarm, clock = result.summaries["sarm"], result.summaries["elapsed"]
    return (
        f"On demonstrations it never saw, SARM is off by {sarm.error.value:.3f} of the task on average and ranks a success above a "
        f"failure {sarm.auc.value:.0%} of the time; a clock is off by {clock.error.value:.3f} and manages {clock.auc.value:.0%}. "
        "Everything here was simulated, trained and measured on this machine by one command."
    )


def tables_of(result: DemoResult) -> list[figures.Section]:
    """The report's numbers."""
    weight_rows = [(name, f"{value:.3f}") for name, value in weight_numbers(result.weighed).items()]
    return [
        figures.Section(
            "Held-out demonstrations",
            "Error is the mean distance from the true progress on successful episodes; stage accuracy likewise. Order is the rank "
            "correlation with time, which a clock wins by definition, so it is never evidence alone. AUC: how often a success ends "
            "above a failure. In brackets: 95 % bootstrap intervals over episodes.",
            *metrics.summary_table(result.summaries),
        ),
        figures.Section(
            "Where failures end",
            "Mean final progress of held-out failures by kind, beside the truth. A failure keeps what it really reached; a model that "
            "says more overclaims.",
            *metrics.failure_table(result.summaries),
        ),
        figures.Section(
            "Wrong instruction",
            "Final progress of held-out successes when the model is asked about another task. In this simulator the scene gives the "
            "task away, so this shows that the instruction is used, not that language is understood.",
            ("what the robot did", "final progress under another instruction"),
            list(result.wrong.items()),
        ),
        figures.Section(
            "Sample weights (RA-BC)",
            f"Horizon {result.weighed.config.chunk_size} frames, kappa {result.weighed.config.kappa:g} (the mean delta). Green frames "
            "count fully, the ramp partly, red ones not at all.",
            ("what", "value"),
            weight_rows,
            [figures.weights_figure(result.weighed)],
        ),
    ]


def weight_numbers(weighed: weights.WeightResult) -> dict[str, float]:
    """The table of weights."""
    return {
        "mean delta": weighed.delta_mean,
        "standard deviation of delta": weighed.delta_std,
        "share of full weights": weighed.full,
        "share on the soft ramp": weighed.soft,
        "share of zero weights": weighed.zero,
        "mean weight": float(np.mean(weighed.weight)),
        "effective sample size, share": weighed.effective,
    }


def one_of_each_kind(episodes: Sequence[Episode]) -> list[Episode]:
    """The first of every kind of every task, task by task."""
    first: dict[tuple[str, str], Episode] = {}
    for episode in episodes:
        first.setdefault((episode.task, str(episode.facts.get("kind", ""))), episode)
    return sorted(first.values(), key=lambda episode: (episode.task, not episode.success, str(episode.facts.get("kind", ""))))


def links_of(episodes: Sequence[Episode]) -> list[figures.Section]:
    """Where to see them."""
    sections = []
    for task in dict.fromkeys(episode.task for episode in episodes):
        links = [
            (f"#/episode/{episode.index}", f"{str(episode.facts.get('kind', 'episode')).replace('_', ' ')} (episode {episode.index})")
            for episode in episodes
            if episode.task == task
        ]
        sections.append(figures.Section(f"See it: {task}", "One held-out episode of each kind, its film beside the curves.", links=links))
    return sections
