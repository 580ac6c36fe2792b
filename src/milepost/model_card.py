"""The README.md of a trained model: what it is, what it was trained on, what it scored on episodes it never saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from milepost.evaluate import Summary, summary_table
from milepost.store import write_text
from milepost.train import Trained

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
        table="\n".join(lines) if summaries else "Nothing was held out, so nothing is claimed.",
        left_out="".join(f"\n{left}\n" for left in trained.left_out),
    )


def save_card(folder: Path, trained: Trained, dataset: str, summaries: Mapping[str, Summary]) -> None:
    """README.md and evaluation.json beside the weights."""
    write_text(folder / "README.md", model_card(trained, dataset, summaries))
    record = {
        "dataset": dataset,
        "train_episodes": trained.train_episodes,
        "held_out": trained.held_out,
        "held_out_table": {name: summary.to_dict() for name, summary in summaries.items()},
    }
    write_text(folder / "evaluation.json", json.dumps(record, indent=2) + "\n")
