"""The README.md and evaluation.json of a fine-tuned model: what it was made from, what it learnt from, its loss before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost.models.training.card import card_fields, settings_of, write_card
from milepost.models.training.recipe import TrainResult

TEMPLATE = """---
library_name: {library}
pipeline_tag: robotics
base_model: {base}
tags: [reward-model, robotics, progress, {kind}]
datasets: [{dataset}]
---

# {title} fine-tuned on `{dataset}`

{what} of [`{base}`]({base}){revision}, fine-tuned with milepost on {train}; {held} held out, split by start scene where the
dataset names one. This folder has what was learnt and no more: the checkpoint is needed too, and its licence holds for this model as well.

    import milepost
    model = milepost.load_model("path/to/this/folder")
    curve = model.predict(milepost.open_dataset("path/to/dataset")[0]).main   # curve.value (T,) in [0, 1], curve.signals

Cameras: {cameras}.

## Training

{training}
{doubts}
`milepost train` settings: {settings}.

## Held-out episodes

{losses}

{table}

`elapsed` is a clock. Error and order are over successful episodes; AUC is how often a success ends above a failure.
{left_out}{audit}"""
WHAT = {"heads": "The heads", "lora": "A low-rank adapter (LoRA) and the heads"}
NAMED = ("fps", "max_pixels", "tuned", "tuned_on")
"""Fields of the config that the card names."""


def save_card(folder: Path, result: TrainResult, dataset: str, *, fingerprint: str) -> None:
    """Writes README.md and evaluation.json beside what was learnt. fingerprint: of the dataset it learnt from."""
    config: Any = result.model.config
    settings = settings_of(result, {name: getattr(config, name) for name in NAMED})
    settings["mixed_precision"] = result.model.engine.precision
    what = WHAT[config.tuned]
    if not result.model.HAS_HEADS:
        what = "Five rows of the output layer" if config.tuned == "heads" else "A low-rank adapter (LoRA)"
    card = TEMPLATE.format(
        library="peft" if config.tuned == "lora" else "milepost",
        base=config.vlm_name,
        revision=f" (revision `{config.vlm_revision}`)" if config.vlm_revision else "",
        kind=config.name,
        title=config.title,
        what=what,
        doubts="".join(f"\n{words[0].upper()}{words[1:]}.\n" for words in result.doubts),
        losses=losses_sentence(result),
        **card_fields(result, dataset, settings),
    )
    losses = [f"{name} {value:.6g}" for name, value in result.losses.items()]
    write_card(folder, card, result, dataset, settings, fingerprint=fingerprint, doubts=result.doubts, held_out_loss=losses)


def losses_sentence(result: TrainResult) -> str:
    """Returns a sentence on the loss of the held-out episodes before and after; "" if there is none."""
    if not result.losses:
        return ""
    return "Their loss was {before:.4f} with the checkpoint as it was and is {after:.4f} now.".format(**result.losses)
