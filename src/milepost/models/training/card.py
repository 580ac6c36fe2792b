"""What the README.md and evaluation.json of every trained model have in common: which weights, which settings, the table, the audit."""

from __future__ import annotations

from pathlib import Path

from milepost.core import FORM_VERSION, count_noun, to_json, write_text
from milepost.metrics import FEWEST, summary_table
from milepost.models.training.recipe import TrainResult
from milepost.progress import verdict_in_words

MARKS = {"passes": "yes", "fails": "**no**", "cannot be said": "?"}


def settings_of(result: TrainResult, config: dict[str, object]) -> dict[str, object]:
    """Returns the settings that the card names: those of the loop around those of the model, `config`."""
    train, fit_result = result.fit_result.config, result.fit_result
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
        **config,
        "validation_episodes": len(result.validation_episodes),
        "patience": train.patience,
    }


def card_fields(result: TrainResult, dataset: str, settings: dict[str, object]) -> dict[str, object]:
    """Returns what fills the places of a card that every kind has; it says so if no episode was held out."""
    columns, rows = summary_table(result.summaries)
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, ["---"] * len(columns), *rows)]
    return {
        "dataset": dataset,
        "train": count_noun(len(result.train_episodes), "episode"),
        "held": f"{len(result.held_out)} {'was' if len(result.held_out) == 1 else 'were'}",
        "cameras": ", ".join(f"`{camera}`" for camera in result.model.config.cameras),
        "training": training_sentence(result),
        "settings": ", ".join(f"`{name}={value}`" for name, value in settings.items()),
        "table": "\n".join(lines) if result.summaries else "Nothing was held out, so nothing is claimed.",
        "audit": audit_section(result),
        "left_out": "".join(f"\n{left}\n" for left in result.left_out),
    }


def write_card(
    folder: Path, card: str, result: TrainResult, dataset: str, settings: dict[str, object], *, fingerprint: str, **more: object
) -> None:
    """Writes README.md and evaluation.json beside the weights. fingerprint: of the dataset it learnt from. more: further entries."""
    write_text(folder / "README.md", card)
    record: dict[str, object] = {
        "format": FORM_VERSION,
        "dataset": dataset,
        **({"dataset_fingerprint": fingerprint} if fingerprint else {}),
        "train_episodes": result.train_episodes,
        "validation_episodes": result.validation_episodes,
        "held_out": result.held_out,
        "training": {**settings, "kept_step": result.fit_result.kept, "steps_done": result.fit_result.steps},
        "validation": dict(result.fit_result.scores),
        **more,
        "audit": None if result.audit is None else result.audit.verdict,
        "held_out_table": {name: summary.to_dict() for name, summary in result.summaries.items()},
    }
    write_text(folder / "evaluation.json", to_json(record, indent=2) + "\n")


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
    fit, chose = result.fit_result, count_noun(len(result.validation_episodes), "episode")
    early = f" (it stopped early, {fit.config.steps} were planned)" if fit.steps < fit.config.steps else ""
    if not result.validation_episodes:
        return f"The weights are those after the last of {fit.steps} steps{early}. No episode was kept aside to choose among checkpoints."
    scores = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in fit.scores.items())
    return (
        f"The weights are those after step {fit.kept} of {fit.steps}{early}: the lowest validation loss, on {chose} kept "
        f"aside from training for this choice and not among the held-out ones ({scores}). The last weights are in `last/`, not uploaded."
    )
