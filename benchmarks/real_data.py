"""Real robots' recordings, and roll-outs of others' simulators: what our recipe learns of them, on held-out episodes, and its audit.

    python -m benchmarks.real_data FOLDER [--only cr5_banana ...] [--encoder efficientnet] [--augmentation 0] [--out real.jsonl]
    python -m benchmarks.real_data FOLDER --pictures DIR [--only cr5_banana ...]     # of the curves that were computed
    python -m benchmarks.real_data --table [--out real.jsonl]

FOLDER has the datasets cr5_banana, g1_bottle, bimanual_table, libero_rollouts and gr1_sim_pick.
Nothing is written into them. Episodes are divided into folds; each fold's curves come from a model that learnt from the others. A variant
is a line of --out: single stage, and staged where there are stages (bimanual_table's own; of cr5_banana those in real_cr5_banana.csv,
which were set by the gripper's command and looked at). Beside the model stand two clocks: `clock` rises from 0 to 1 over the very episode,
so it knows when the recording ends, as no reward can; `stopwatch` counts frames and has learnt from the other episodes how long one takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.efficientnet import EfficientNetLite
from milepost import figures
from milepost.annotation import read_file
from milepost.core import Curve, Episode, Stages, annotated_stages
from milepost.datasets import LeRobotDataset, open_dataset, validate
from milepost.encoders import Encoder, FeatureCache, PixelImages
from milepost.metrics import (
    CONTROLS,
    Audit,
    EpisodeCurves,
    audit_curves,
    clock,
    mean_error,
    mean_estimate,
    score_episode,
    summarise,
)
from milepost.metrics.controls import FAULTS
from milepost.metrics.scores import interval, separation
from milepost.models.sarm.settings import PRESETS
from milepost.models.sarm.train import train_sarm
from milepost.models.training.episodes import attempts_of
from milepost.progress import AuditConfig, audit

STAGES_BY_HAND = Path(__file__).parent / "real_cr5_banana.csv"


SHOWN = ("rise", "frozen", "shuffled", "follow", "images_share", "end_ahead", "voc")
"""The audit's rows that the table has."""


@dataclass(frozen=True)
class Variant:
    """What is learnt of a set. folds: in how many parts its episodes are divided. keep: which episodes count. stride: of the audit.
    by_task: all episodes of a task are in one fold, so that no held-out instruction was learnt.
    """

    folds: int
    mode: str = "single_stage"
    by_hand: bool = False
    keep: Callable[[Episode], bool] = lambda episode: True
    stride: int = 1
    by_task: bool = False


def is_spatial(episode: Episode) -> bool:
    """Returns whether a roll-out is of LIBERO-Spatial and of the larger source: sources and suites are never pooled."""
    words = ("black bowl", "place it on the plate")
    return episode.facts.get("source") == "jaswu51" and all(each in episode.task for each in words)


VARIANTS: dict[str, dict[str, Variant]] = {
    "cr5_banana": {"single stage": Variant(5, by_hand=True), "stages by hand": Variant(5, "sparse_only", by_hand=True)},
    "g1_bottle": {"single stage": Variant(3)},
    "bimanual_table": {"single stage": Variant(2, stride=10), "its own stages": Variant(2, "sparse_only", stride=10)},
    "libero_rollouts": {
        "single stage, Spatial": Variant(5, keep=is_spatial),
        # A failure is not learnt from. So above each held-out success is asked about with an instruction that no other episode taught.
        "single stage, Spatial, tasks held out": Variant(5, keep=is_spatial, by_task=True),
    },
    "gr1_sim_pick": {"single stage": Variant(5)},
}


def episodes_of(dataset: LeRobotDataset, variant: Variant) -> list[Episode]:
    """Returns the episodes that count, with the stages that were set by hand if they are asked for."""
    episodes = [episode for episode in (dataset[i] for i in range(len(dataset))) if variant.keep(episode)]
    if not variant.by_hand:
        return episodes
    table = read_file(STAGES_BY_HAND, fps=dataset.fps, lengths={episode.index: episode.length for episode in episodes})
    return [dataclasses.replace(episode, segments=table[episode.index]) for episode in episodes]


def run(dataset: LeRobotDataset, variant: Variant, args: argparse.Namespace, encoder: Encoder, curves_file: Path) -> dict[str, Any]:
    """Returns the numbers of one variant over all folds, and writes its curves."""
    episodes = episodes_of(dataset, variant)
    fold_of = folds(episodes, variant, args.seed)
    features = FeatureCache(args.cache, dataset.fingerprint, encoder=encoder)
    curves: dict[int, Curve] = {}
    stopwatches: dict[int, Curve] = {}
    audited: list[EpisodeCurves] = []
    start = time.monotonic()
    for fold in range(variant.folds):
        held_out, learnt = ([each for each in episodes if (fold_of[each.index] == fold) is side] for side in (True, False))
        model = trained(dataset, learnt, variant, args, features)
        usual = float(np.median([episode.length for episode in learnt if episode.success is not False]))
        for episode in held_out:
            curves[episode.index] = model.predict(episode).main
            stopwatches[episode.index] = Curve(stopwatch(episode.length, usual))
        config = AuditConfig(seed=args.seed, controls=controls_for(args.faults))
        # A part of the same dataset, whose features are kept; of another one the audit would encode every image for every copy.
        part = dataset.only([episode.index for episode in held_out])
        audited += audit(model, part, config=config, options={"stride": variant.stride}).curves
        print(f"fold {fold + 1} of {variant.folds}, {time.monotonic() - start:.0f} s", flush=True)
    curves_file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(curves_file, **{str(index): curve.value for index, curve in curves.items()})
    numbers = {
        "episodes": len(episodes), "folds": variant.folds, "seconds": round(time.monotonic() - start),
        "audit": audit_of(audit_curves(audited, seed=args.seed)),
    }  # fmt: skip
    numbers |= against_time(episodes, curves, stopwatches, args.seed)
    return numbers | against_stages(episodes, curves, stopwatches, args.seed) | against_outcomes(episodes, curves, args.seed)


def folds(episodes: Sequence[Episode], variant: Variant, seed: int) -> dict[int, int]:
    """Returns the fold of each episode by its index: episodes are dealt in a random order, or tasks are."""
    hands = sorted({episode.task for episode in episodes}) if variant.by_task else [episode.index for episode in episodes]
    dealt = {hands[i]: place % variant.folds for place, i in enumerate(np.random.default_rng(seed).permutation(len(hands)))}
    return {episode.index: dealt[episode.task if variant.by_task else episode.index] for episode in episodes}


def controls_for(faults: bool) -> tuple[str, ...]:
    """Returns the audit's controls: all with the faults of cameras, which cost a hundred times the rest: every image is encoded anew."""
    return () if faults else tuple(name for name in CONTROLS if name not in FAULTS)


def stopwatch(length: int, usual: float) -> np.ndarray:
    """Returns the progress that the frame's number tells to someone who knows how long an episode usually takes."""
    return np.minimum(np.arange(length, dtype=np.float32) / np.float32(usual - 1), 1)


def trained(
    dataset: LeRobotDataset, episodes: Sequence[Episode], variant: Variant, args: argparse.Namespace, features: FeatureCache
) -> Any:
    """Returns a SARM that learnt from these episodes by the small preset."""
    sarm, train = PRESETS["small"]
    first, *more = dataset.cameras
    built_in = features.encoder.name == PixelImages.name
    sarm = dataclasses.replace(
        sarm, annotation_mode=variant.mode, image_key=first, more_image_keys=tuple(more),
        encoder="pixels" if built_in else args.encoder, augmentation=strength_of(args),
    )  # fmt: skip
    train = dataclasses.replace(train, steps=args.steps, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train_sarm(episodes, sarm, train, folder=Path(folder), stages={}, holdout=0.0, features=features)
    return result.model.use_features(features)


def audit_of(result: Audit) -> dict[str, Any]:
    """Returns verdict, evidence and what each property's line says, over the episodes of all folds."""
    lines = {each.name: f"{each.state}: {each.evidence}" for each in result.properties}
    return {"verdict": result.verdict, "properties": lines, **{name: str(result.rows[name]) for name in SHOWN}}


def against_time(episodes: Sequence[Episode], curves: Mapping[int, Curve], stopwatches: Mapping[int, Curve], seed: int) -> dict[str, Any]:
    """Returns the mean error against the elapsed proportion of each successful episode (what one stage teaches): the model's, the
    stopwatch's, and the first minus the second. Negative: the model knows better than a stopwatch when the episode will end.
    """
    good = [episode for episode in episodes if episode.success is not False]
    errors = {
        name: np.array([mean_error(of[each.index].value, clock(each.length)) for each in good])
        for name, of in {"model": curves, "stopwatch": stopwatches}.items()
    }
    errors["difference"] = errors["model"] - errors["stopwatch"]
    return {f"time_{name}": str(mean_estimate(list(each), np.random.default_rng(seed))) for name, each in errors.items()}


def against_stages(episodes: Sequence[Episode], curves: Mapping[int, Curve], stopwatches: Mapping[int, Curve], seed: int) -> dict[str, Any]:
    """Returns error and stage accuracy against the annotated stages, the clocks' too, where there are stages; and each episode's error."""
    if not all(episode.segments.get("sparse") for episode in episodes):
        return {}
    stages: Stages = annotated_stages(attempts_of(episodes, "sparse"))
    clocks = {each.index: Curve(clock(each.length)) for each in episodes}
    out: dict[str, Any] = {}
    for name, of in {"model": curves, "clock": clocks, "stopwatch": stopwatches}.items():
        scores = [score_episode(of[each.index], each, stages, "sparse") for each in episodes]
        summary = summarise(scores, np.random.default_rng(seed))
        out |= {f"error_{name}": str(summary.error), f"stages_{name}": str(summary.stage_accuracy)}
        out[f"errors_{name}"] = {str(score.episode): round(float(score.error), 5) for score in scores}
    return out


def against_outcomes(episodes: Sequence[Episode], curves: Mapping[int, Curve], seed: int) -> dict[str, Any]:
    """Returns how often a success is above a failure, at the frame where the shortest episode ends, so that length says nothing."""
    sides = [[each for each in episodes if each.success is side] for side in (True, False)]
    if not all(sides):
        return {}
    at = min(episode.length for episode in episodes) - 1
    values = [np.array([curves[each.index].value[at] for each in side]) for side in sides]
    low, high = interval(separation, *values, rng=np.random.default_rng(seed))
    return {"auc_at_frame": at, "auc": f"{separation(*values):.3f} [{low:.2f}, {high:.2f}]", "outcomes": [len(side) for side in sides]}


def strength_of(args: argparse.Namespace) -> float:
    """Returns the strength of the augmentation: 0.5 for the built-in encoder and none for another one, if nothing else was asked for."""
    if args.augmentation is not None:
        return args.augmentation
    return 0.5 if args.encoder == "pixels" else 0.0


def changes(args: argparse.Namespace) -> str:
    """Returns what the options add to a variant's name."""
    if args.encoder == "efficientnet":
        return ", EfficientNet" + (", augmentation" if strength_of(args) else "")
    return "" if strength_of(args) else ", no augmentation"


def file_of(name: str, words: str, args: argparse.Namespace) -> Path:
    """Returns where a variant's curves are kept."""
    return args.cache / "curves" / f"{name}, {words}{changes(args)}.npz"


def draw(name: str, dataset: LeRobotDataset, args: argparse.Namespace) -> None:
    """Writes the curves of an encoder's variants that were computed beside frames and a clock, as PNG, for each episode."""
    args.pictures.mkdir(parents=True, exist_ok=True)
    files = {words: file_of(name, words, args) for words in VARIANTS[name]}
    files = {words: np.load(file) for words, file in files.items() if file.is_file()}
    episodes = episodes_of(dataset, next(iter(VARIANTS[name].values())))
    stages = {"sparse": annotated_stages(attempts_of(episodes, "sparse"))} if episodes[0].segments.get("sparse") else {}
    for episode in episodes:
        by_name = {words: Curve(arrays[str(episode.index)]) for words, arrays in files.items()}
        by_name["a clock"] = Curve(clock(episode.length))
        figure = figures.episode_figure(figures.episode_view(episode, {"sparse": by_name}, stages))
        image = Image.open(io.BytesIO(figures.figure_bytes(figure, "png"))).convert("RGB")
        # 256 colours: a third of the bytes, for a page of documentation.
        image.quantize(256, dither=Image.Dither.NONE).save(args.pictures / f"{name}_{episode.index}.png", optimize=True)


TABLES: dict[str, dict[str, str]] = {
    "against time": {
        "episodes": "episodes", "time_model": "error", "time_stopwatch": "a stopwatch's", "time_difference": "difference",
        "auc": "AUC at a fixed frame",
    },
    "against stages": {
        "error_model": "error", "error_clock": "a clock's", "error_stopwatch": "a stopwatch's", "stages_model": "stage accuracy",
        "stages_clock": "a clock's", "stages_stopwatch": "a stopwatch's",
    },
}  # fmt: skip


def table(lines: Sequence[Mapping[str, Any]], seed: int) -> str:
    """Returns Markdown: errors, what the audit said, and the same episodes' errors of one variant minus another's."""
    parts = []
    for which, columns in TABLES.items():
        parts += [f"| {which} | " + " | ".join(columns.values()) + " |", "|---|" + "---|" * len(columns)]
        known = [line for line in lines if which == "against time" or "error_model" in line]
        parts += [f"| {name_of(line)} | " + " | ".join(str(line.get(name, "")) for name in columns) + " |" for line in known]
        parts += [""]
    parts += ["| the audit | verdict | " + " | ".join(SHOWN) + " |", "|---|---|" + "---|" * len(SHOWN)]
    for line in lines:
        said = line["audit"]
        parts.append(f"| {name_of(line)} | {said['verdict']} | " + " | ".join(said[name] for name in SHOWN) + " |")
    return "\n".join([*parts, "", *paired(lines, seed), "", *properties(lines)])


def name_of(line: Mapping[str, Any]) -> str:
    """Returns set and variant, for a table."""
    return f"`{line['set']}`, {line['variant']}"


def paired(lines: Sequence[Mapping[str, Any]], seed: int) -> list[str]:
    """Returns a line for each two variants of a set: the error against the stages of the one minus the other's, episode by episode."""
    staged = [line for line in lines if "errors_model" in line]
    curves = [(line["set"], line["variant"], line["errors_model"]) for line in staged]
    curves += [(line["set"], which, line[f"errors_{which}"]) for line in staged for which in ("clock", "stopwatch")]
    out = {}
    for place, (name, words, errors) in enumerate(curves):
        for other_name, other, others in curves[place + 1 :]:
            if name == other_name and words not in ("clock", "stopwatch"):
                gap = mean_estimate([errors[episode] - others[episode] for episode in errors], np.random.default_rng(seed))
                out[f"{name}: {words} minus {other}"] = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    return [f"- {words}: {gap}" for words, gap in out.items()]


def properties(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns every property's line of every audit."""
    return [f"- {name_of(line)}: {name}: {said}" for line in lines for name, said in line["audit"]["properties"].items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS))
    parser.add_argument("--variant", default="", help="this one alone, such as 'stages by hand'")
    parser.add_argument("--encoder", choices=["pixels", "efficientnet"], default="pixels")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--augmentation", type=float, help="default: 0.5 for the built-in encoder, 0 for another")
    parser.add_argument("--faults", action="store_true", help="changed light, colour, noise and place are audited too: hours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("real.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("real_cache"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for line in args.out.read_text().splitlines()], args.seed))
        return
    torch.set_num_threads(1)
    for name in args.only:
        dataset = open_dataset(args.folder / name)
        if args.pictures:
            draw(name, dataset, args)
            continue
        report = validate(args.folder / name)
        print(name, "healthy" if report.healthy else [finding.message for finding in report.findings], flush=True)
        measure(name, dataset, args)


def measure(name: str, dataset: LeRobotDataset, args: argparse.Namespace) -> None:
    """Adds a line to --out for each variant of a set that has none."""
    encoder: Encoder = EfficientNetLite() if args.encoder == "efficientnet" else PixelImages()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.is_file() else []
    for words, variant in VARIANTS[name].items():
        if args.variant not in ("", words):
            continue
        if any((line["set"], line["variant"]) == (name, words + changes(args)) for line in lines):
            continue
        numbers = run(dataset, variant, args, encoder, file_of(name, words, args))
        with args.out.open("a") as file:
            file.write(json.dumps({"set": name, "variant": words + changes(args), **numbers}) + "\n")
        print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()
