"""All steps of the demo on simulated demonstrations: simulate, train, label, weigh, report.

Each step writes its result to disk and is skipped when that result exists, so an interrupted demo continues where it stopped. All reported
numbers are on held-out episodes: episodes are split by start scene.
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
    """Settings of the demo. `tasks` are simulated tasks; `successes` and `failures` are episodes per task."""

    tasks: tuple[str, ...] = sim.SimConfig.tasks
    successes: int = 48
    failures: int = 24
    holdout: float = 0.34
    steps: int = 700
    chunk_size: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Results of the demo: one summary per model on held-out episodes, final values under a wrong instruction, weights, seconds by step."""

    summaries: Mapping[str, metrics.Summary]
    wrong: Mapping[str, metrics.Estimate]
    weight_result: weights.WeightResult
    seconds: Mapping[str, float]
    report: Path
    problems: tuple[str, ...] = ()
    """Messages about episodes or videos that the report lacks."""


MADE = ("dataset", "dataset.partial", "models", "cache", "seconds.json", "report.html", "demo.json")
"""The files and folders of a demo; its mark is the last, so that an interrupted removal can be repeated."""


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
        """Prepares the folder. DataError if it has a demo with other settings."""
        self.folder, self.config, self.on_stage, self.workers = folder, config, on_stage, workers
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / "demo.json"
        settings = json.dumps(dataclasses.asdict(config), allow_nan=False)
        if mark.exists() and read_text(mark) != settings:
            raise DataError(f"{folder} holds a demo with other settings; use --overwrite or another --output-dir")
        write_text(mark, settings)
        times = folder / "seconds.json"
        self.seconds: dict[str, float] = read_json_object(times) if times.is_file() else {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds to the seconds of a step, also over interruptions."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - start
            write_text(self.folder / "seconds.json", json.dumps(self.seconds, allow_nan=False))

    def run(self) -> DemoResult:
        """Runs all five steps."""
        dataset = self.simulate()
        reward_models = {name: self.train(name, mode, dataset) for name, mode in MODES.items()}
        tables = self.label(dataset, reward_models)
        weight_result = self.weigh(dataset, tables["sarm"])
        return self.report(dataset, reward_models, tables, weight_result)

    def simulate(self) -> datasets.LeRobotDataset:
        """Makes `dataset/`, demonstrations with known truth, if it does not exist."""
        root, config = self.folder / "dataset", self.config
        if not root.exists():
            with self.timed("simulate"):
                simulation = sim.SimConfig(config.tasks, sim.episodes_by_kind(config.successes, config.failures), seed=config.seed)
                sim.make_dataset(root, simulation, workers=self.workers, on_progress=Ticks(self.on_stage))
        return datasets.open_dataset(root)

    def train(self, name: str, mode: models.AnnotationMode, dataset: datasets.LeRobotDataset) -> models.SARMModel:
        """Trains `models/<name>/`, a SARM on the training scenes; evaluation.json names the held-out episodes."""
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
                held_out_episodes = [episode for episode in episodes if episode.index in trained.held_out]
                tick = self.on_stage(f"{name}: evaluate")
                models.save_card(
                    folder,
                    trained,
                    dataset.name,
                    models.evaluate_held_out(trained.model, held_out_episodes, on_progress=tick, seed=self.config.seed),
                )
        return models.SARMModel.from_pretrained(folder).use_features(cache)

    def held_out(self) -> list[int]:
        """Returns the indices of held-out episodes; they are the same for both models."""
        return json.loads((self.folder / "models" / "sarm" / "evaluation.json").read_text())["held_out"]

    def label(self, dataset: datasets.LeRobotDataset, reward_models: Mapping[str, models.SARMModel]) -> dict[str, progress.ProgressTable]:
        """Writes `dataset/<name>_progress.parquet` of both models and of the clock."""
        tables = {}
        everyone: dict[str, RewardModel] = {**reward_models, "elapsed": models.ElapsedModel()}
        for name, model in everyone.items():
            path = dataset.root / f"{name}_progress.parquet"
            if not path.is_file():
                with self.timed("label"):
                    source = str(self.folder / "models" / name) if name in reward_models else name
                    progress.label(
                        model,
                        dataset,
                        path,
                        made_by=progress.provenance(model, dataset, source, bare=source == name),
                        on_progress=self.on_stage(f"label: {name}"),
                    )
            tables[name] = progress.read_progress(path)
        return tables

    def weigh(self, dataset: datasets.LeRobotDataset, table: progress.ProgressTable) -> weights.WeightResult:
        """Writes `dataset/weights.parquet`, with kappa at the mean delta."""
        with self.timed("weigh"):
            columns = (table.index, table.episode_index, table.values())
            config = weights.RabcConfig(chunk_size=self.config.chunk_size)
            kappa = weights.suggested_kappa(weights.weigh(*columns, config=config))
            result = weights.weigh(*columns, config=dataclasses.replace(config, kappa=kappa))
            settings = {"progress_file": "sarm_progress.parquet"}
            weights.SampleWeights.of(result).save(dataset.root / "weights.parquet", result.config, settings)
        return result

    def report(
        self,
        dataset: datasets.LeRobotDataset,
        reward_models: Mapping[str, models.SARMModel],
        tables: Mapping[str, progress.ProgressTable],
        weight_result: weights.WeightResult,
    ) -> DemoResult:
        """Writes `report.html`: tables, and held-out episodes with their videos."""
        with self.timed("report"):
            held_out = set(self.held_out())
            episodes = [episode for episode in (dataset[i] for i in range(len(dataset))) if episode.index in held_out]
            stages = dataset.stages["sparse"]
            summaries = {name: self.summary(table, episodes, stages) for name, table in tables.items()}
            wrong = self.wrong_instruction(reward_models["sarm"], episodes)
            path = self.folder / "report.html"
            result = DemoResult(summaries, wrong, weight_result, self.seconds, path)
            examples = one_of_each_kind(episodes)
            sections = [*tables_of(result), *links_of(examples)]
            words = figures.report_fragment(
                title="How far along is the task?", lead=lead_of(result), facts=self.facts(dataset, held_out), sections=sections
            )
            problems = self.write_page(path, dataset, tables, weight_result, [episode.index for episode in examples], words)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        return dataclasses.replace(result, problems=tuple(problems))

    def write_page(
        self,
        path: Path,
        dataset: datasets.LeRobotDataset,
        tables: Mapping[str, progress.ProgressTable],
        weight_result: weights.WeightResult,
        episodes: list[int],
        words: str,
    ) -> list[str]:
        """Writes the report with these episodes as `milepost view` shows them. Returns one message per episode or video that it lacks."""
        reward_models = {name: viewer.Model(dataset.root / f"{name}_progress.parquet", table) for name, table in tables.items()}
        weights_path = dataset.root / "weights.parquet"
        weight_rows = weights_path, progress.by_row(weights_path, weight_result.index, weight_result.weight, dataset)
        marks = viewer.Marks(viewer.marks_file(dataset), dataset)
        review = viewer.Review(dataset, reward_models, marks=marks, weights=weight_rows, report=words)
        videos = viewer.VideoCache(self.folder / "cache" / "films", self.workers)
        try:
            tick = self.on_stage("report: videos")
            return viewer.export_html(review, path, episodes=episodes, films=videos, title="milepost demo", tick=tick)
        finally:
            videos.close()
            review.close()

    def summary(self, table: progress.ProgressTable, episodes: Sequence[Episode], stages: Stages) -> metrics.Summary:
        """Summarises one model's curves on the held-out episodes."""
        scores = []
        for episode in episodes:
            scores.append(metrics.score_episode(table.curve(episode.index, episode.length), episode, stages))
        return metrics.summarise(scores, np.random.default_rng(self.config.seed))

    def wrong_instruction(self, model: models.SARMModel, episodes: Sequence[Episode]) -> dict[str, metrics.Estimate]:
        """Computes, per task, the final progress of held-out successes when the model gets the instruction of each other task."""
        tasks = sorted({episode.task for episode in episodes})
        tick, good = self.on_stage("wrong instruction"), [e for e in episodes if e.success]
        ends: dict[str, list[float]] = {task: [] for task in tasks}
        for count, episode in enumerate(good):
            others = [dataclasses.replace(episode, task=task) for task in tasks if task != episode.task]
            ends[episode.task] += [metrics.final(model.predict(other).value) for other in others]
            tick(count + 1, len(good))
        rng = np.random.default_rng(self.config.seed)
        return {task: metrics.mean_estimate(values, rng) for task, values in ends.items() if values}

    def facts(self, dataset: datasets.LeRobotDataset, held_out: set[int]) -> list[tuple[str, str]]:
        """Returns the lines under the report's title."""
        total = sum(self.seconds.values())
        return [
            ("dataset", f"{len(dataset)} simulated demonstrations, {dataset.total_frames} frames, {len(dataset.tasks)} tasks"),
            ("cameras", ", ".join(dataset.cameras)),
            ("held out", f"{len(held_out)} episodes whose start scene no model was trained on"),
            ("time before this page", f"{total:.0f} s: " + ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.seconds.items())),
        ]


def lead_of(result: DemoResult) -> str:
    """Returns the result in two sentences, from the numbers."""
    sarm, clock = result.summaries["sarm"], result.summaries["elapsed"]
    return (
        f"On demonstrations it never saw, SARM is off by {sarm.error.value:.3f} of the task on average and ranks a success above a "
        f"failure {sarm.auc.value:.0%} of the time; a clock is off by {clock.error.value:.3f} and manages {clock.auc.value:.0%}. "
        "Everything here was simulated, trained and measured on this machine by one command."
    )


def tables_of(result: DemoResult) -> list[figures.Section]:
    """Returns the report's tables."""
    config = result.weight_result.config
    weight_rows = [(name, f"{value:.3f}") for name, value in weight_numbers(result.weight_result).items()]
    return [
        figures.Section(
            "Held-out demonstrations",
            "Error is the mean distance from the true progress on successful episodes; stage accuracy is on the same episodes. VOC "
            "(value-order correlation) is the rank correlation with time. A clock wins it by definition, so it is never evidence alone. "
            "AUC: how often a success ends above a failure. In brackets: 95 % bootstrap intervals over episodes.",
            *metrics.summary_table(result.summaries),
        ),
        figures.Section(
            "Where failures end",
            "Mean final progress of held-out failures by kind, beside the truth. A failed attempt keeps the progress that it reached; a "
            "model with a higher value overestimates it.",
            *metrics.failure_table(result.summaries),
        ),
        figures.Section(
            "Wrong instruction",
            "Final progress of held-out successes when the model gets the instruction of another task. In this simulator the scene "
            "reveals the task, so this shows that the model uses the instruction, not that it understands language.",
            ("what the robot did", "final progress under another instruction"),
            list(result.wrong.items()),
        ),
        figures.Section(
            "Sample weights (RA-BC)",
            f"Horizon {config.chunk_size} frames, kappa {config.kappa:g} (the mean delta). Green frames "
            "have full weight, those on the ramp part of it, red ones none.",
            ("what", "value"),
            weight_rows,
            [figures.weights_figure(result.weight_result)],
        ),
    ]


def weight_numbers(result: weights.WeightResult) -> dict[str, float]:
    """Returns the numbers of the table of weights."""
    return {
        "mean delta": result.delta_mean,
        "standard deviation of delta": result.delta_std,
        "proportion of full weights": result.full,
        "proportion on the soft ramp": result.soft,
        "proportion of zero weights": result.zero,
        "mean weight": float(np.mean(result.weight)),
        "effective sample size, proportion": result.effective,
    }


def one_of_each_kind(episodes: Sequence[Episode]) -> list[Episode]:
    """Returns the first episode of every kind of every task, task by task."""
    first: dict[tuple[str, str], Episode] = {}
    for episode in episodes:
        first.setdefault((episode.task, str(episode.facts.get("kind", ""))), episode)
    return sorted(first.values(), key=lambda episode: (episode.task, not episode.success, str(episode.facts.get("kind", ""))))


def links_of(episodes: Sequence[Episode]) -> list[figures.Section]:
    """Returns sections with links to the episodes, one per task."""
    sections = []
    for task in dict.fromkeys(episode.task for episode in episodes):
        links = [
            (f"#/episode/{episode.index}", f"{str(episode.facts.get('kind', 'episode')).replace('_', ' ')} (episode {episode.index})")
            for episode in episodes
            if episode.task == task
        ]
        sections.append(figures.Section(f"See it: {task}", "One held-out episode of each kind: its video beside the curves.", links=links))
    return sections
