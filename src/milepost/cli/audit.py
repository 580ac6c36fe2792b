"""Audit a model on your own episodes: does its progress follow what is seen, or the time? It is shown edited copies, beside a clock."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost import datasets, encoders, figures, metrics, models, progress
from milepost.cli.console import bars, say, table, warn
from milepost.cli.taught import taught_by
from milepost.core import RewardModel, count_noun, to_json


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder (SARM or TOPReward), Hub id, "elapsed", "topreward" or a model of another package."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    controls: tuple[str, ...] = ()
    """Names of the controls to run, such as frozen_first shuffled; default: all."""
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """Instruction for episodes without one; SARM uses it for all episodes."""
    episodes: str | None = None
    """Episodes to audit, such as 0-9,12 or 0 1 2; default: the first --num-episodes."""
    num_episodes: int = 20
    """How many episodes are audited without --episodes: two successes for each failure, where the dataset knows them."""
    output_dir: Path | None = None
    """Folder for audit.json, the figure, and the curves of finished episodes; default: audit_NAME, after the model's name."""
    format: figures.Format = "png"
    """Format of the figure."""
    json: bool = False
    """Print the numbers as JSON."""
    yes: bool = False
    """Do not ask before a server is asked many questions."""
    seed: int = 0
    """Seed of the shuffled frames, the noise and the bootstrap."""
    revision: str | None = None
    device: str = "auto"


IN_FILE = ("change_", "final_", "stalled", "regressed")
"""How the rows begin that stand in audit.json alone: the table shows the others."""


def main(args: Args) -> int:
    """Audits and reports. Returns 0 if no property fails, 1 if one fails or an episode cannot be read."""
    config = progress.AuditConfig(args.head_mode, args.controls, args.seed)
    if args.num_episodes < 1:
        raise ValueError(f"--num-episodes must be at least 1, got {args.num_episodes}")
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    if args.episodes is None:
        outcomes = {index: dataset.meta.episodes[index].facts.get("success") for index in dataset.episode_indices}
        dataset = dataset.only(progress.choose_episodes(outcomes, args.num_episodes))
    kind = models.kind_of(args.model)
    run = models.Run(encoders.resolve_device(args.device), heads=(args.head_mode,), task=args.task)
    prepared = models.prepare(args.model, models.options_for(kind, args.model_options), dataset, run)
    name = Path(args.model).resolve().name
    folder = args.output_dir or Path(f"audit_{name}")
    figures.require_own_audit(folder, {"model": name, "dataset": dataset.name})
    _require_consent(args, prepared, len(dataset))
    prepared.begin()
    with bars() as bar:
        result = progress.audit(
            prepared.model, prepared.dataset, config=config, beside=_beside(kind, prepared.model, args.seed), folder=folder / "curves",
            options=prepared.arguments, settings=prepared.settings, on_progress=bar("audit"),
        )  # fmt: skip
    taught, words = taught_by(Path(args.model), dataset, {each.episode for each in result.curves})
    record = figures.write_audit(result, folder, dataset, model=name, taught=taught, kind=args.format)
    if args.json:
        say(to_json(record))
    else:
        _print(result, dataset.name)
        if words:
            say(words)
        say(f"audit: {folder}")
    for number, reason in result.unreadable.items():
        warn(f"episode {number} is left out: {reason}")
    return 0 if result.audit.passes and not result.unreadable else 1


def _require_consent(args: Args, prepared: models.Prepared, episodes: int) -> None:
    """Asks before a server is asked, with the number of questions. ValueError if there is nobody to ask."""
    questions = prepared.questions * episodes * (1 + len(args.controls or metrics.CONTROLS))
    if not questions:
        return
    about = f"about {count_noun(episodes, 'episode')}, and 2 to find out how it answers"
    words = f"the audit will ask the server up to {questions} questions {about}"
    if args.yes:
        sys.stderr.write(f"{words}\n")
        return
    if not sys.stdin.isatty():
        raise ValueError(f"{words}; add --yes, or audit fewer: --num-episodes, --controls")
    sys.stderr.write(f"{words}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was asked")


def _beside(kind: models.ModelKind, model: RewardModel, seed: int) -> dict[str, RewardModel]:
    """Returns what every audit shows beside the model: a clock, and an untrained model of the same shape where its kind can make one."""
    untrained = {} if kind.untrained is None else {"untrained": kind.untrained(model, seed)}
    return {"elapsed": models.ElapsedModel(), **untrained}


def _print(result: progress.AuditRun, name: str) -> None:
    audits: Mapping[str, metrics.Audit] = {"model": result.audit, **result.beside}
    rows = [(words, *(audit.rows[row] for audit in audits.values())) for row, words in metrics.ROWS.items() if not row.startswith(IN_FILE)]
    table(f"{len(result.curves)} episodes of {name} (95 % intervals over episodes)", ("", *audits), rows)
    marks = {"passes": "yes", "fails": "NO", "cannot be said": "?"}
    table("what it does", ("", "property", "evidence"), [(marks[each.state], each.name, each.evidence) for each in result.audit.properties])
    if result.clocks:
        say(f"channels of the state that tell the time, kept running: {', '.join(map(str, result.clocks))}")
    for other, audit in result.beside.items():
        say(f"{other}: {audit.verdict}")
    say(f"verdict: {result.audit.verdict}: {metrics.VERDICTS[result.audit.verdict]}")
