"""The README.md and evaluation.json of a trained value model: what it is, what it learnt from, what it scored on episodes it never saw."""

from __future__ import annotations

import json
from pathlib import Path

from milepost.core import write_text
from milepost.metrics import summary_table
from milepost.models.sarm.card import audit_section, training_sentence
from milepost.models.sarm.train import TrainResult
from milepost.models.value.config import ValueConfig

TEMPLATE = """---
library_name: milepost
pipeline_tag: robotics
tags: [reward-model, robotics, progress, value]
datasets: [{dataset}]
---

# Value of `{dataset}`

A distribution over the time that is left until success ({bins} bins, {members} networks, reduction `{reduction}`), trained with milepost on
{train} episodes, failures among them; {held} were held out, split by start scene where the dataset names one.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    curve = model.predict(milepost.open_dataset("path/to/dataset")[0]).main   # curve.value (T,) in [0, 1], curve.signals

Cameras: {cameras}. Scales: {scales}.

## Training

{training}
{doubts}
`milepost train` settings: {settings}.

## Held-out episodes, 95 % intervals

{table}

`elapsed` is a clock. Error and order are over successful episodes; AUC is how often a success ends above a failure.
{left_out}{audit}"""


def save_card(folder: Path, result: TrainResult, dataset: str, *, fingerprint: str = "") -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from."""
    write_text(folder / "README.md", model_card(result, dataset))
    record: dict[str, object] = {
        "dataset": dataset,
        **({"dataset_fingerprint": fingerprint} if fingerprint else {}),
        "train_episodes": result.train_episodes,
        "validation_episodes": result.validation_episodes,
        "held_out": result.held_out,
        "training": {**_settings(result), "kept_step": result.fit_result.kept, "steps_done": result.fit_result.steps},
        "validation": dict(result.fit_result.scores),
        "doubts": result.doubts,
        "audit": None if result.audit is None else result.audit.verdict,
        "held_out_table": {name: summary.to_dict() for name, summary in result.summaries.items()},
    }
    write_text(folder / "evaluation.json", json.dumps(record, indent=2) + "\n")


def model_card(result: TrainResult, dataset: str) -> str:
    """Returns Markdown with the held-out table; it says so if no episode was held out."""
    config: ValueConfig = result.model.config
    columns, rows = summary_table(result.summaries)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *rows)]
    return TEMPLATE.format(
        dataset=dataset,
        bins=config.bins,
        members=config.members,
        reduction=config.reduction,
        train=len(result.train_episodes),
        held=len(result.held_out),
        cameras=", ".join(f"`{camera}`" for camera in config.cameras),
        scales="; ".join(f"`{task}` {scale:.0f} frames" for task, scale in zip(config.tasks, config.scales, strict=True)),
        training=training_sentence(result),
        doubts="".join(f"\n{words[0].upper()}{words[1:]}.\n" for words in result.doubts),
        settings=", ".join(f"`{name}={value}`" for name, value in _settings(result).items()),
        table="\n".join(lines) if result.summaries else "Nothing was held out, so nothing is claimed.",
        left_out="".join(f"\n{left}\n" for left in result.left_out),
        audit=audit_section(result),
    )


def _settings(result: TrainResult) -> dict[str, object]:
    train, fitted, config = result.fit_result.config, result.fit_result, result.model.config
    ours = ("encoder", "n_obs_steps", "gap_s", "bins", "target", "sigma_bins", "members", "reduction", "normalise", "failure_frames")
    return {
        "steps": train.steps,
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "processes": fitted.processes,
        "lr": train.lr,
        "weight_decay": train.weight_decay,
        "seed": train.seed,
        "mixed_precision": fitted.precision,
        **{name: getattr(config, name) for name in ours},
        "validation_episodes": len(result.validation_episodes),
    }
