"""The numbers of docs/value.md: is the value model calibrated, does it rank failures, do its advantages help a policy?

    milepost simulate DATASET
    python benchmarks/value_model.py calibrate DATASET [--seeds 0 1 2]          held-out episodes, beside SARM and a clock
    python benchmarks/value_model.py policies FOLDER [--seeds 5 6 7]            policies trained on advantage-filtered data
    python benchmarks/value_model.py --report [policies FOLDER]                 the tables; with FOLDER also which frames the arms choose

Every finished model or policy is a line of benchmarks/value_model.jsonl; what is there is not run again. `policies` uses the tasks, seeds,
demonstrations, start scenes and policies of benchmarks/rabc_study.py, whose lines for the other arms are in rabc_study.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milepost.core import ArrayFrames, Episode
from milepost.datasets import open_dataset
from milepost.encoders import SIDE, FeatureCache, PixelImages
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm
from milepost.models.training.episodes import split
from milepost.models.training.recipe import learn
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.settings import PRESETS as VALUE_PRESETS
from milepost.models.value.targets import above_boundary, bin_centres
from milepost.models.value.train import ValueRecipe
from milepost.sim.closed_loop import observations
from milepost.sim.compare import demonstrations as drawn_by
from milepost.sim.compare.arms import ARMS, Mix
from milepost.sim.compare.config import CompareConfig, PoolConfig
from milepost.sim.compare.experiment import PolicyJob, Pools, append, mixture, read_lines, run_one
from milepost.sim.compare.policy import Demonstrations
from milepost.sim.compare.table import points, rates
from milepost.sim.scene import CAMERAS, close_painters
from milepost.sim.tasks import TASKS as SIMULATED
from milepost.sim.world import FPS
from milepost.weights.advantage import AdvantageConfig, EpisodeProgress, label_advantages

HERE = Path(__file__).parent
OUT, STUDY = HERE / "value_model.jsonl", HERE / "rabc_study.jsonl"
HOLDOUT = 1 / 3
FRAMES = (10, 20, 30, 40)
"""Frames at which successes and failures are told apart; 20 are a second."""
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "value": {}, "value, two-hot": {"target": "two_hot"}, "value, LeRobot's returns": {"normalise": "lerobot"},
}  # fmt: skip
TASKS = ("pick-place-v3", "shelf-place-v3", "peg-insert-side-v3", "assembly-v3")
SHARE = 0.8
HORIZON = 6
"""Frames that an advantage looks ahead: the policy's chunk, as RA-BC does in the study."""
FILTERS = ("rabc-sarm", "adv-value-30", "adv-sarm-30", "adv-value-70", "adv-sarm-70", "rabc-value", "adv-true-30", "adv-crossed-30")
"""The arms that are run here: rabc-sarm too, because a SARM trained by another version of the code has other weights. The arms that are
taken from the study are reproduced to the outcome by the same seed."""
STORED = ("uniform", "success", "success+short", "rabc-true")
DRAWS = 2000


# Held-out episodes


def calibrate(args: argparse.Namespace) -> None:
    """Train every model on every split that is not in the results yet."""
    dataset = open_dataset(args.dataset)
    episodes = [dataset[i] for i in range(len(dataset))]
    features = FeatureCache(None, dataset.fingerprint, encoder=PixelImages(32))
    images = dict(zip((e.index for e in episodes), features.stream(episodes, dataset.cameras), strict=True))
    done = {(line["model"], line["seed"]) for line in read_lines(args.out) if line["what"] == "calibrate"}
    for seed in args.seeds:
        learn, unseen = split(episodes, HOLDOUT, np.random.default_rng(seed))
        for name in args.models:
            if (name, seed) in done:
                continue
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                fitted = _fit(name, episodes, dataset, features, seed, Path(folder))
            seconds = round(time.monotonic() - start, 1)
            for line in _asked(name, fitted, unseen, learn, images):
                append(args.out, {"what": "calibrate", "model": name, "seed": seed, "train_s": seconds, **line})
            print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}: {seconds:.0f} s", flush=True)


def _fit(name: str, episodes: Sequence[Episode], dataset: Any, features: FeatureCache, seed: int, folder: Path) -> Any:
    first, *more = dataset.cameras
    if name == "SARM":
        sarm, train = PRESETS["small"]
        sarm = dataclasses.replace(sarm, annotation_mode="sparse_only", image_key=first, more_image_keys=tuple(more), gap_s=0.1)
        train = dataclasses.replace(train, steps=400, batch_size=32, seed=seed, validation=0.0, checkpoint_s=1e9)
        return train_sarm(episodes, sarm, train, folder=folder, stages=dataset.stages, holdout=HOLDOUT, features=features).model
    config, train = VALUE_PRESETS["small"]
    config = dataclasses.replace(config, image_key=first, more_image_keys=tuple(more), **VARIANTS[name])
    train = dataclasses.replace(train, seed=seed, validation=0.1, checkpoint_s=1e9)
    return learn(ValueRecipe(config), episodes, train, folder=folder, holdout=HOLDOUT, features=features).model


def _asked(name: str, model: Any, unseen: Sequence[Episode], learn: Sequence[Episode], images: Mapping[int, np.ndarray]) -> list[dict]:
    """Returns a line, with columns over the held-out episodes; for the value model one for the worst member too."""
    if name == "SARM":
        curves = [model.predict_features(e, model.project(images[e.index])).main for e in unseen]
        return [_columns(unseen, [c.value for c in curves])]
    lines, distributions = [], [model.distribution(e, model.project(images[e.index])) for e in unseen]
    for reduction in ("mean", "min"):
        model.use_reduction(reduction)
        parts = [model._summary(each, model.config.pace(e.task)) for each, e in zip(distributions, unseen, strict=True)]
        line = _columns(unseen, [value for value, _ in parts])
        if model.config.knows_success:
            line |= _calibration(model.config, unseen, learn, distributions, [signals for _, signals in parts])
        lines.append({**line, "reduction": reduction})
    return lines


def _columns(unseen: Sequence[Episode], values: Sequence[np.ndarray]) -> dict[str, Any]:
    scenes = sorted({f"{e.task} {e.facts['scene']}" for e in unseen})
    at = {f"at_{frame}": [_rounded(v[frame]) if len(v) > frame else None for v in values] for frame in FRAMES}
    return {
        "scene": [scenes.index(f"{e.task} {e.facts['scene']}") for e in unseen],
        "kind": [str(e.facts["kind"]) for e in unseen],
        "success": [bool(e.success) for e in unseen],
        "final": [_rounded(np.mean(v[-3:])) for v in values],
        "order": [_rounded(np.corrcoef(v, np.arange(len(v)))[0, 1] if np.ptp(v) else 0) for v in values],
        **at,
    }


def _calibration(
    config: ValueConfig,
    unseen: Sequence[Episode],
    learn: Sequence[Episode],
    distributions: Sequence[np.ndarray],
    signals: Sequence[Mapping],
) -> dict[str, Any]:
    """Returns per episode: the error of the predicted time, that of a stopwatch, the coverage of the 80 % interval; and, for the
    probability of success, the Brier score and sums of a reliability diagram of ten bins: frames, predicted, observed."""
    is_success, centres = above_boundary(config.bins).numpy(), bin_centres(config.bins).numpy()
    errors, stopwatch, covered, brier, bias = [], [], [], [], []
    bins = np.zeros((10, 3))
    for episode, probability, signal in zip(unseen, distributions, signals, strict=True):
        outcome, success = float(bool(episode.success)), signal["success"]
        brier.append(_rounded(np.mean((success - outcome) ** 2)))
        place = np.minimum((success * 10).astype(int), 9)
        for column, numbers in enumerate((np.ones_like(success), success, np.full_like(success, outcome))):
            bins[:, column] += np.bincount(place, numbers, minlength=10)
        if not outcome:
            for column in (errors, stopwatch, covered, bias):
                column.append(None)
            continue
        left = np.arange(episode.length)[::-1] / episode.fps
        usual = np.median([e.length - 1 for e in learn if e.success and e.task == episode.task])
        by_clock = np.maximum(0, usual - np.arange(episode.length)) / episode.fps
        known = ~np.isnan(signal["seconds"])
        errors.append(_rounded(np.mean(np.abs(signal["seconds"] - left)[known])))
        bias.append(_rounded(np.mean((signal["seconds"] - left)[known])))
        stopwatch.append(_rounded(np.mean(np.abs(by_clock - left))))
        given = probability[..., is_success].mean(0)
        below = np.cumsum(given / given.sum(-1, keepdims=True), -1)
        scale, _ = config.pace(episode.task)
        low, high = (-centres[is_success][(below < q).sum(-1).clip(max=is_success.sum() - 1)] * scale / episode.fps for q in (0.9, 0.1))
        covered.append(_rounded(np.mean((left >= low - 0.5 / episode.fps) & (left <= high + 0.5 / episode.fps))))
    return {
        "time_error": errors, "time_bias": bias, "stopwatch_error": stopwatch, "covered_80": covered, "brier": brier,
        "reliability": np.round(bins, 2).tolist(),
    }  # fmt: skip


def _rounded(number: float) -> float:
    return round(float(number), 4)


# Policies


def policies(args: argparse.Namespace) -> None:
    """Draw what is missing, train the value models, and run the policies that are not in the results yet."""
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    config = CompareConfig(TASKS, shares=(SHARE,), seeds=tuple(args.seeds))
    pools = Pools(args.folder, config.pool)
    done = {(line["task"], line["seed"], line["arm"]) for line in read_lines(args.out) if line["what"] == "policy"}
    for seed in args.seeds:
        for task in TASKS:
            wanted_arms = [arm for arm in args.arms if (task, seed, arm) not in done]
            if not wanted_arms:
                continue
            curves = _curves(task, seed, pools, args.folder)
            pool = pools.get(task, seed)
            pool.progress.update({f"value-{name}": value for name, value in curves.items()})
            if any("crossed" in arm for arm in wanted_arms):
                pool.progress.update({"crossed": _crossed(task, seed, pool, pools, args.folder)})
            for arm in wanted_arms:
                job = PolicyJob(seed, task, SHARE, arm)
                line = run_one(job, pool, config)
                append(args.out, {"what": "policy", **dataclasses.asdict(job), "key": config.key(), **line})
                print(f"{time.strftime('%H:%M:%S')} {task} {seed} {arm}: {np.mean(line['success']):.2f}", flush=True)


def advantage_filter(mix: Mix, curve: str, positive: float) -> np.ndarray:
    """Returns weight 1 for frames of positive advantage and 0 for the others. Outcomes are told, as RECAP's are."""
    parts = [
        EpisodeProgress(e, "", mix.progress[curve][mix.episode == e].astype(np.float32), bool(success))
        for e, success in enumerate(mix.success)
    ]
    labels = label_advantages(parts, AdvantageConfig(horizon=HORIZON, positive=positive)).episodes
    return np.concatenate([each.is_positive for each in labels]).astype(np.float32)


def _register() -> None:
    """Adds the arms of this study to those of the comparison."""
    for curve, name in (("value", "value-mean"), ("value-min", "value-min"), ("sarm", "sarm"), ("true", "true"), ("crossed", "crossed")):
        for positive in (30, 70):
            ARMS[f"adv-{curve}-{positive}"] = lambda mix, config, rng, name=name, positive=positive: advantage_filter(
                mix, name, positive / 100
            )
    ARMS["rabc-value"] = lambda mix, config, rng: ARMS["rabc-true"](
        dataclasses.replace(mix, progress={"true": mix.progress["value-mean"]}), config, rng
    )


def _curves(task: str, seed: int, pools: Pools, folder: Path) -> dict[str, np.ndarray]:
    """Returns progress of every frame of the demonstrations by a value model that learnt from the episodes that SARM learns from.

    It is told which of these 30 bad demonstrations succeeded (18 did), and no stages.
    """
    path = folder / f"value-{task}-{seed}-{pools.mark}.npz"
    if not path.is_file():
        pictures = folder / f"pictures-{task}-{seed}-{pools.mark}.npz"
        if not pictures.is_file():
            _draw(task, seed, pools, folder, pictures)
        with np.load(pictures, allow_pickle=False) as file:
            own, views = (_episodes(file, task, which) for which in ("reward", "policy"))
        model = _value(own, seed)
        curves: dict[str, list[np.ndarray]] = {"mean": [], "min": []}
        for episode in views:
            probability = model.distribution(episode)
            for reduction, values in curves.items():
                model.use_reduction(reduction)
                values.append(model._summary(probability, model.config.pace(episode.task))[0])
        np.savez_compressed(path, **{name: np.concatenate(values) for name, values in curves.items()})
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _value(episodes: Sequence[Episode], seed: int) -> ValueModel:
    """Trains a value model on one task, with fewer steps than the preset, because there are fewer episodes."""
    config, train = VALUE_PRESETS["small"]
    first, *more = CAMERAS
    config = dataclasses.replace(config, image_key=first, more_image_keys=tuple(more))
    train = dataclasses.replace(train, steps=400, seed=seed, validation=0.2, checkpoint_s=1e9)
    with tempfile.TemporaryDirectory() as scratch:
        model: ValueModel = learn(ValueRecipe(config), episodes, train, folder=Path(scratch), holdout=0.0).model
    return model


def _crossed(task: str, seed: int, pool: Any, pools: Pools, folder: Path) -> np.ndarray:
    """Returns progress of every frame by value models that learnt from the demonstrations themselves too, whose outcomes the filter knows.

    Half of the mixture is labelled by a model of the other half and of the 30 bad demonstrations, so that no episode labels itself. NaN
    outside the mixture.
    """
    path = folder / f"crossed-{task}-{seed}-{pools.mark}.npy"
    if not path.is_file():
        with np.load(folder / f"pictures-{task}-{seed}-{pools.mark}.npz", allow_pickle=False) as file:
            own, views = (_episodes(file, task, which) for which in ("reward", "policy"))
        used = [int(e) for e in pool.mix(pools.config.episodes, SHARE)]
        out = [np.full(each.length, np.nan, np.float32) for each in views]
        for fold in (0, 1):
            others = [views[e] for e in used[1 - fold :: 2]]
            others = [dataclasses.replace(e, index=1000 + e.index, facts={"success": bool(pool.success[e.index])}) for e in others]
            model = _value([*own, *others], seed)
            for e in used[fold::2]:
                out[e] = model.predict(views[e]).value
        np.save(path, np.concatenate(out))
    return np.load(path)


def _episodes(file: Any, task: str, which: str) -> list[Episode]:
    """Returns the episodes of a file of pictures; "reward" has outcomes."""
    ends = np.cumsum(file[f"{which}_lengths"])
    state, images = file[f"{which}_state"], {camera: file[f"{which}_images_{camera}"] for camera in CAMERAS}
    episodes = []
    for place, (start, stop) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        facts = {"success": bool(file["reward_success"][place]), "kind": str(file["reward_kind"][place])} if which == "reward" else {}
        cameras = {camera: ArrayFrames(array[start:stop]) for camera, array in images.items()}
        episodes.append(Episode(place, 0, SIMULATED[task].instruction, FPS, int(stop - start), state[start:stop], cameras, facts=facts))
    return episodes


def _draw(task: str, seed: int, pools: Pools, folder: Path, pictures: Path) -> None:
    """Draws the study's demonstrations and SARM's curve of them, and keeps the reduced pictures of both sets."""
    config: PoolConfig = pools.config
    rollouts, truths = drawn_by._simulate(task, drawn_by.POLICY + seed, {"expert": config.episodes, **drawn_by._equal(config.episodes)})
    own, own_truths = drawn_by._simulate(task, drawn_by.REWARD + seed, drawn_by._equal(config.annotated))
    learn = [drawn_by._episode(place, *pair, config.side) for place, pair in enumerate(zip(own, own_truths, strict=True))]
    views = [drawn_by._episode(place, rollout, None, config.side) for place, rollout in enumerate(rollouts)]
    close_painters()
    model = drawn_by._train(learn, seed, config)
    progress = {"true": np.concatenate([t.progress for t in truths]), "sarm": np.concatenate([model.predict(e).value for e in views])}
    frames = Demonstrations(
        np.concatenate([observations(rollout.trace) for rollout in rollouts]),
        np.concatenate([rollout.action for rollout in rollouts]),
        np.repeat(np.arange(len(rollouts)), [len(rollout) for rollout in rollouts]),
    )
    outcomes = {"reward_success": np.array([bool(r.success) for r in own]), "reward_kind": np.array([r.kind for r in own])}
    np.savez_compressed(pictures, **_pictures("reward", learn), **_pictures("policy", views), **outcomes)
    success = np.array([r.success for r in rollouts])
    drawn_by.Pool(task, seed, frames, tuple(r.kind for r in rollouts), success, progress).save(
        folder / f"demonstrations-{task}-{seed}-{pools.mark}.npz"
    )


def _pictures(which: str, episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    every = {camera: np.concatenate([e.camera(camera)[np.arange(e.length)] for e in episodes]) for camera in CAMERAS}
    assert all(array.shape[1:] == (SIDE, SIDE, 3) for array in every.values())
    return {
        f"{which}_lengths": np.array([e.length for e in episodes]),
        f"{which}_state": np.concatenate([e.state for e in episodes]),
        **{f"{which}_images_{camera}": array for camera, array in every.items()},
    }


# Tables


def report(args: argparse.Namespace) -> str:
    """Returns every table of docs/value.md."""
    lines = read_lines(args.out)
    parts = [ranking([line for line in lines if line["what"] == "calibrate"])]
    parts += [timing([line for line in lines if line["what"] == "calibrate" and "brier" in line])]
    ours = [line for line in lines if line["what"] == "policy"]
    parts += [policy_table(ours)] if ours else []
    return "\n".join([*parts, tenths(args.folder, ours)] if args.part == "policies" else parts)


def tenths(folder: Path, ours: Sequence[Mapping[str, Any]]) -> str:
    """Returns the mean weight that each arm gives to the tenths of the experts' episodes, over the cells that were run."""
    config, rows = CompareConfig(TASKS, shares=(SHARE,)), []
    pools = Pools(folder, config.pool)
    for arm in ("rabc-true", "rabc-sarm", "rabc-value", "adv-true-30", "adv-sarm-30", "adv-value-30"):
        parts = []
        for task, seed in sorted({(line["task"], line["seed"]) for line in ours}):
            pool = pools.get(task, seed)
            pool.progress.update({f"value-{name}": value for name, value in _curves(task, seed, pools, folder).items()})
            used = pool.mix(config.pool.episodes, SHARE)
            mix = mixture(pool, config.pool.episodes, SHARE)[1]
            weight = ARMS[arm](mix, config.rabc, np.random.default_rng(0))
            experts = [e for e, number in enumerate(used) if pool.kind[number] == "expert"]
            parts += [[part.mean() for part in np.array_split(weight[mix.episode == e], 10)] for e in experts]
        rows.append((arm, *(f"{x:.2f}" for x in np.mean(parts, axis=0))))
    return markdown(("weight of experts' frames, by tenth", *map(str, range(1, 11))), rows)


def _rows(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Returns the lines by model: the worst member is a model of its own."""
    rows: dict[str, list] = {}
    for line in lines:
        rows.setdefault(line["model"] + (", worst of 3" if line.get("reduction") == "min" else ""), []).append(line)
    return rows


def _draws(line: Mapping[str, Any]) -> np.ndarray:
    """Returns the weight of each episode in each bootstrap draw, start scenes resampled; the first row is all ones."""
    scene = np.array(line["scene"])
    counts = np.random.default_rng(line["seed"]).multinomial(scene.max() + 1, np.full(scene.max() + 1, 1 / (scene.max() + 1)), size=DRAWS)
    return np.concatenate([np.ones((1, scene.max() + 1)), counts])[:, scene]


def _auc(value: np.ndarray, success: np.ndarray, weight: np.ndarray) -> np.ndarray:
    known = ~np.isnan(value)
    value, success, weight = value[known], success[known], weight[:, known]
    gap = 0.5 + 0.5 * np.sign(value[success][:, None] - value[~success][None, :])
    good, bad = weight[:, success], weight[:, ~success]
    return ((good @ gap) * bad).sum(1) / (good.sum(1) * bad.sum(1))


def _mean(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    known = ~np.isnan(value)
    return weight[:, known] @ value[known] / weight[:, known].sum(1)


def _estimate(by_seed: Sequence[np.ndarray], sign: str = "") -> str:
    mean = np.mean(by_seed, axis=0)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return f"{mean[0]:{sign}.3f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def _column(line: Mapping[str, Any], name: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in line[name]], float)


def ranking(lines: Sequence[Mapping[str, Any]]) -> str:
    """AUC at the end and at fixed frames, and where successes and failures end; then the difference from SARM."""
    places = ("final", *(f"at_{frame}" for frame in FRAMES))
    names = ("end", *(f"frame {frame}" for frame in FRAMES))
    rows, base = _rows(lines), {line["seed"]: line for line in lines if line["model"] == "SARM"}
    table, gaps = [], []
    for row, of_row in rows.items():
        found = {place: [_auc(_column(x, place), np.array(x["success"]), _draws(x)) for x in of_row] for place in places}
        ends = [
            [_mean(np.where(np.array(x["success"]) == good, _column(x, "final"), np.nan), _draws(x)) for x in of_row]
            for good in (True, False)
        ]
        table.append((row, str(len(of_row)), *(_estimate(found[place]) for place in places), *map(_estimate, ends)))
        if row != "SARM" and all(x["seed"] in base for x in of_row):
            there = {place: [_auc(_column(base[x["seed"]], place), np.array(x["success"]), _draws(x)) for x in of_row] for place in places}
            gaps.append((row, *(_estimate([a - b for a, b in zip(found[p], there[p], strict=True)], "+") for p in places)))
    header = ("AUC, success above failure", "seeds", *names, "successes end", "failures end")
    return markdown(header, table) + "\n" + markdown(("minus SARM", *names), gaps)


def timing(lines: Sequence[Mapping[str, Any]]) -> str:
    """The predicted time, the probability of success, and its reliability."""
    table, reliability = [], []
    for row, of_row in _rows(lines).items():
        cells = [
            _estimate([_mean(_column(x, name), _draws(x)) for x in of_row])
            for name in ("time_error", "stopwatch_error", "time_bias", "covered_80", "brier")
        ]
        base = [np.mean(x["success"]) * (1 - np.mean(x["success"])) for x in of_row]
        table.append((row, *cells, f"{np.mean(base):.3f}"))
        sums = np.sum([x["reliability"] for x in of_row], axis=0)
        cells = [f"{p / n:.2f}: {o / n:.2f} ({n:.0f})" if n else "" for n, p, o in sums]
        reliability.append((row, *cells))
    header = ("", "error of the time, s", "of a stopwatch", "bias, s", "80 % interval covers", "Brier of success", "of the base rate")
    bins = tuple(f"{i / 10:.1f} to {(i + 1) / 10:.1f}" for i in range(10))
    return markdown(header, table) + "\n" + markdown(("predicted: observed (frames)", *bins), reliability)


def policy_table(ours: Sequence[Mapping[str, Any]]) -> str:
    """Success of every arm over the cells that this study has, and the difference from three arms of the RA-BC study."""
    cells = {(line["task"], line["seed"]) for line in ours}
    key = ours[0]["key"]
    theirs = [
        x for x in read_lines(STUDY) if x["share"] == SHARE and x["key"] == key and (x["task"], x["seed"]) in cells and x["arm"] in STORED
    ]
    lines = [*theirs, *ours]
    arms = [*STORED, *dict.fromkeys(x["arm"] for x in ours)]
    rows = []
    for arm in arms:
        of_arm = [x for x in lines if x["arm"] == arm]
        gaps = [
            points(rates(lines, SHARE, [arm], base=base)[arm][1], signed=True) if arm != base else ""
            for base in ("uniform", "success+short", "rabc-sarm")
        ]
        rate = rates(lines, SHARE, [arm], base=arm)[arm][0]
        of_task = [[np.mean(x["success"]) for x in of_arm if x["task"] == task] for task in TASKS]
        by_task = [f"{100 * np.mean(each):.0f}" if each else "" for each in of_task]
        rows.append((arm, str(rate.episodes), f"{np.mean([x['mean_weight'] for x in of_arm]):.2f}", points(rate), *gaps, *by_task))
    header = ("arm", "cells", "mean weight", "success, %", "minus uniform", "minus success+short", "minus rabc-sarm", *TASKS)
    return markdown(header, rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Runs a part, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("calibrate", "policies"))
    parser.add_argument("where", nargs="?", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--models", nargs="+", default=["SARM", *VARIANTS])
    parser.add_argument("--arms", nargs="+", default=list(FILTERS))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    _register()
    args.dataset = args.folder = args.where
    if args.report:
        print(report(args))
    elif args.part and args.where:
        args.seeds = args.seeds or ([0, 1, 2] if args.part == "calibrate" else [5, 6, 7])
        {"calibrate": calibrate, "policies": policies}[args.part](args)
    else:
        parser.error("name a part and its folder, or --report")


if __name__ == "__main__":
    main()
