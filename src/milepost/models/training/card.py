"""The README.md of a trained model: what it is, what it was trained on, what it scored on episodes it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from milepost.core import write_text
from milepost.metrics import Summary, summary_table
from milepost.models.sarm.train import Trained

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
{left_out}"""


def model_card(trained: Trained, dataset: str, summaries: Mapping[str, Summary]) -> str:
    """Markdown with the held-out table; says so when nothing was held out."""
    config = trained.model.config
    columns, rows = summary_table(summaries)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *rows)]
    named = [
        f"{head}: " + ", ".join(f"{name} ({share:.2f})" for name, share in zip(stages.names, stages.shares, strict=True))
        for head, stages in config.heads.items()
    ]
    return TEMPLATE.format(
        kind="sarm",
        dataset=dataset,
        mode=config.annotation_mode,
        train=len(trained.train_episodes),
        held=len(trained.held_out),
        cameras=", ".join(f"`{camera}`" for camera in config.cameras),
        stages="; ".join(named),
        training=_training(trained),
        settings=", ".join(f"`{name}={value}`" for name, value in _settings(trained).items()),
        table="\n".join(lines) if summaries else "Nothing was held out, so nothing is claimed.",
        left_out="".join(f"\n{left}\n" for left in trained.left_out),
    )


def _training(trained: Trained) -> str:
    """Which checkpoint this is, and what chose it."""
    fitted, chose = trained.fitted, len(trained.validation_episodes)
    early = f" (it stopped early, {fitted.config.steps} were planned)" if fitted.steps < fitted.config.steps else ""
    if not chose:
        return (
            f"The weights are those after the last of {fitted.steps} steps{early}. No episode was kept aside to choose among checkpoints."
        )
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in fitted.scores.items())
    return (
        f"The weights are those after step {fitted.kept} of {fitted.steps}{early}: the lowest validation loss, on {chose} episodes kept "
        f"aside from training for this choice and not among the held-out ones ({scores}). The last weights are in `last/`, not uploaded."
    )


def _settings(trained: Trained) -> dict[str, object]:
    train, sarm, fitted = trained.fitted.config, trained.model.config, trained.fitted
    return {
        "steps": train.steps,
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "processes": fitted.processes,
        "lr": train.lr,
        "weight_decay": train.weight_decay,
        "warmup": train.warmup,
        "seed": train.seed,
        "mixed_precision": fitted.precision,
        "encoder": sarm.encoder,
        "window": sarm.window,
        "n_obs_steps": sarm.n_obs_steps,
        **({"gap_s": sarm.gap_s} if sarm.frame_gap is None else {"frame_gap": sarm.frame_gap}),
        "state_key": sarm.state_key,
        "validation_episodes": len(trained.validation_episodes),
        "patience": train.patience,
    }


def save_card(folder: Path, trained: Trained, dataset: str, summaries: Mapping[str, Summary], *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    write_text(folder / "README.md", model_card(trained, dataset, summaries))
    record: dict[str, object] = {
        "dataset": dataset,
        **({"dataset_fingerprint": fingerprint} if fingerprint else {}),
        "train_episodes": trained.train_episodes,
        "validation_episodes": trained.validation_episodes,
        "held_out": trained.held_out,
        "training": {**_settings(trained), "kept_step": trained.fitted.kept, "steps_done": trained.fitted.steps},
        "validation": dict(trained.fitted.scores),
        "held_out_table": {name: summary.to_dict() for name, summary in summaries.items()},
    }
    write_text(folder / "evaluation.json", json.dumps(record, indent=2) + "\n")
