"""The README.md of a trained model: what it is, what it was trained on, what it scored on episodes it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from milepost.core import write_text
from milepost.metrics import FEWEST, Summary, summary_table
from milepost.models.sarm.train import TrainResult
from milepost.progress import verdict_in_words

TEMPLATE = """---
library_name: milepost
pipeline_tag: robotics
tags: [reward-model, robotics, progress, {kind}]
datasets: [{dataset}]
---

# Task progress for `{dataset}`

SARM (stage-aware reward model, [arXiv 2509.25358](https://arxiv.org/abs/2509.25358)), annotation mode `{mode}`, trained with milepost on
{train} episodes; {held} were kept out, split by start scene where the dataset names one.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    progress = model.predict(milepost.open_dataset("path/to/dataset")[0]).value   # (T,) in [0, 1]

Cameras: {cameras}. Stages: {stages}.

## Training

{training}

`milepost train` settings: {settings}.

## Held-out episodes, 95 % intervals

{table}

Error, stage accuracy and order are over successful episodes; AUC is how often a success ends above a failure. `elapsed` is a clock.
{left_out}{audit}"""


def model_card(result: TrainResult, dataset: str, summaries: Mapping[str, Summary]) -> str:
    """Returns Markdown with the held-out table; it says so if no episode was held out."""
    config = result.model.config
    columns, rows = summary_table(summaries)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *rows)]
    head_lines = [
        f"{head}: " + ", ".join(f"{name} ({proportion:.2f})" for name, proportion in zip(stages.names, stages.shares, strict=True))
        for head, stages in config.heads.items()
    ]
    return TEMPLATE.format(
        kind="sarm",
        dataset=dataset,
        mode=config.annotation_mode,
        train=len(result.train_episodes),
        held=len(result.held_out),
        cameras=", ".join(f"`{camera}`" for camera in config.cameras),
        stages="; ".join(head_lines),
        training=training_sentence(result),
        settings=", ".join(f"`{name}={value}`" for name, value in _settings(result).items()),
        table="\n".join(lines) if summaries else "Nothing was held out, so nothing is claimed.",
        audit=audit_section(result),
        left_out="".join(f"\n{left}\n" for left in result.left_out),
    )


MARKS = {"passes": "yes", "fails": "**no**", "cannot be said": "?"}


def audit_section(result: TrainResult) -> str:
    """Returns the section on what the curves follow; "" if no episode was held out."""
    if result.audit is None:
        words = f"Not audited: fewer than {FEWEST} held-out episodes succeeded, or may have. `milepost audit` can be given other episodes."
        return f"\n## A reward, or a clock?\n\n{words}\n" if result.held_out else ""
    lines = [f"| {each.name} | {MARKS[each.state]} | {each.evidence} |" for each in result.audit.properties]
    table = "\n".join(["| property | | evidence |", "|---|---|---|", *lines])
    return (
        f"\n## A reward, or a clock?\n\n`milepost audit` of {result.audit.episodes} held-out episodes: **{result.audit.verdict}**, "
        f"{verdict_in_words(result.audit.verdict, result.audit.reason)}.\n\n{table}\n"
    )


def training_sentence(result: TrainResult) -> str:
    """Returns a sentence on which checkpoint this is and how it was chosen."""
    fit, chose = result.fit_result, len(result.validation_episodes)
    early = f" (it stopped early, {fit.config.steps} were planned)" if fit.steps < fit.config.steps else ""
    if not chose:
        return f"The weights are those after the last of {fit.steps} steps{early}. No episode was kept aside to choose among checkpoints."
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in fit.scores.items())
    return (
        f"The weights are those after step {fit.kept} of {fit.steps}{early}: the lowest validation loss, on {chose} episodes kept "
        f"aside from training for this choice and not among the held-out ones ({scores}). The last weights are in `last/`, not uploaded."
    )


def _settings(result: TrainResult) -> dict[str, object]:
    train, sarm, fit_result = result.fit_result.config, result.model.config, result.fit_result
    return {
        "steps": train.steps,
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "processes": fit_result.processes,
        "lr": train.lr,
        "weight_decay": train.weight_decay,
        "warmup": train.warmup,
        "seed": train.seed,
        "mixed_precision": fit_result.precision,
        "encoder": sarm.encoder,
        "window": sarm.window,
        "n_obs_steps": sarm.n_obs_steps,
        **({"gap_s": sarm.gap_s} if sarm.frame_gap is None else {"frame_gap": sarm.frame_gap}),
        "state_key": sarm.state_key,
        "augmentation": sarm.augmentation,
        "validation_episodes": len(result.validation_episodes),
        "patience": train.patience,
    }


def save_card(folder: Path, result: TrainResult, dataset: str, summaries: Mapping[str, Summary], *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    write_text(folder / "README.md", model_card(result, dataset, summaries))
    record: dict[str, object] = {
        "dataset": dataset,
        **({"dataset_fingerprint": fingerprint} if fingerprint else {}),
        "train_episodes": result.train_episodes,
        "validation_episodes": result.validation_episodes,
        "held_out": result.held_out,
        "training": {**_settings(result), "kept_step": result.fit_result.kept, "steps_done": result.fit_result.steps},
        "validation": dict(result.fit_result.scores),
        "audit": None if result.audit is None else result.audit.verdict,
        "held_out_table": {name: summary.to_dict() for name, summary in summaries.items()},
    }
    write_text(folder / "evaluation.json", json.dumps(record, indent=2) + "\n")
