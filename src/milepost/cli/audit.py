"""Test whether a model's progress follows what is seen, or only the time.

The model is shown edited copies of your own episodes, beside a clock.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost import datasets, figures, metrics, models, progress, scale
from milepost.cli import audit_ray
from milepost.cli.audit_models import beside, prepared_for
from milepost.cli.console import bars, closed_after, say, table, unlisted, warn, warn_all
from milepost.cli.taught import taught_by
from milepost.core import count_noun, require_place, to_json


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    model: Annotated[str, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder (SARM or TOPReward), Hub id, "elapsed", "topreward" or a model of another package."""
    head_mode: Literal["sparse", "dense"] = "sparse"
    controls: tuple[str, ...] = ()
    """Names of the controls to run, such as frozen_first shuffled, or all; default: all."""
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """Instruction for episodes without one; SARM uses it for all episodes."""
    episodes: str | None = None
    """Episodes to audit, such as 0-9,12 or 0 1 2; default: the first --num-episodes."""
    num_episodes: int | None = None
    """How many episodes are audited without --episodes: two successes for each failure, where the dataset knows them. Default: 20."""
    output_dir: Path | None = None
    """Folder for audit.json, the figure, and the curves of finished episodes; default: audit_NAME, after the model's name. A
    dataset's own folder is refused."""
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
    ray_options: Annotated[scale.RayOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=scale.RayOptions)


rewritten = scale.with_address
IN_FILE = ("change_", "final_", "stalled", "regressed")
"""How the rows begin that stand in audit.json alone: the table shows the others."""
USUAL = 20
"""Episodes that are audited if nobody says how many."""


def main(args: Args) -> int:
    """Audits and reports. Returns 0 if the verdict is "reward", no property fails and every episode could be read, else 1.

    What cannot be run raises an error, which `milepost` turns into exit code 2.
    """
    config, cluster = _config(args), scale.Cluster.from_options(args.ray_options)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    if args.episodes is None:
        outcomes = {index: dataset.meta.episodes[index].facts.get("success") for index in dataset.episode_indices}
        dataset = dataset.only(progress.choose_episodes(outcomes, USUAL if args.num_episodes is None else args.num_episodes))
    name = Path(args.model).resolve().name
    folder = args.output_dir or Path(f"audit_{name}")
    figures.require_own_audit(folder, {"model": name, "dataset": dataset.name})
    too_few = _too_few(args, dataset)
    warn_all([f'the verdict will be "cannot be said": {words}' for words in too_few])
    require_place(folder)
    run = partial(_run, args, config, dataset, folder / "curves")
    with nullcontext() if cluster is None else cluster.joined(warn):
        result = run() if cluster is None else run(cluster)
    taught, words = taught_by(Path(args.model), dataset, {each.episode for each in result.curves})
    record = figures.write_audit(result, folder, dataset, model=name, taught=taught, kind=args.format)
    if args.json:
        say(to_json(record))
    else:
        _print(result, dataset.name)
        if words:
            say(words)
        say(f"audit: {folder}")
    warn_all([*unlisted(result.unreadable), *_advice(args, result, len(dataset.meta.episodes), is_said=bool(too_few))])
    return 0 if result.audit.passes and not result.unreadable else 1


def _run(
    args: Args, config: progress.AuditConfig, dataset: datasets.LeRobotDataset, folder: Path, cluster: scale.Cluster | None = None
) -> progress.AuditRun:
    """Audits in this process, or on a cluster. folder: of the curves, which is read and written here in any case."""
    if cluster is not None:
        numbers = tuple(dataset.episode_indices)
        audited = audit_ray.Audited(args.dataset, args.revision, numbers, args.model, args.model_options, config, args.task, args.device)
        planned = audit_ray.plan(audited, cluster)
        there = progress.plan_elsewhere(dataset.showing(planned.cameras), planned.made_by, config=config, folder=folder)
        paid = planned.questions is not None
        _require_consent(args, there, there.questions_left(planned.questions or {}) if paid else 0, each="from each process ")
        return audit_ray.run(audited, cluster, there, paid=paid)
    prepared = prepared_for(args.model, args.model_options, dataset, args.head_mode, args.task, args.device)
    plan = progress.plan_audit(
        prepared.model, prepared.dataset, config=config, folder=folder, options=prepared.arguments, settings=prepared.settings
    )
    about, others = prepared.questions, beside(args.model, prepared.model, args.seed)
    _require_consent(args, plan, 0 if about is None else plan.questions(about))
    with closed_after(prepared.model), bars() as bar:
        return progress.run_audit(plan, beside=others, on_progress=bar("audit"), paid=about is not None)


def _config(args: Args) -> progress.AuditConfig:
    """Returns what is run. ValueError for options that contradict each other, and for names that do not exist."""
    if args.episodes is not None and args.num_episodes is not None:
        raise ValueError("--episodes says which episodes are audited and --num-episodes how many; give one of them")
    if args.num_episodes is not None and args.num_episodes < 1:
        raise ValueError(f"--num-episodes must be at least 1, got {args.num_episodes}")
    if "all" in args.controls and len(args.controls) > 1:
        raise ValueError("--controls all runs every control; give it alone, or give names without it")
    return progress.AuditConfig(args.head_mode, () if args.controls == ("all",) else args.controls, args.seed)


def _require_consent(args: Args, plan: progress.AuditPlan, questions: int, *, each: str = "") -> None:
    """Asks a person before a server is asked so many questions. each: who asks two more. ValueError if nobody is there."""
    if not questions:
        return
    finished = len(plan.stored)
    done = f" ({count_noun(finished, 'other')} {'was' if finished == 1 else 'were'} finished by an earlier run)" if finished else ""
    of = f"about {count_noun(len(plan.left), 'episode')}{done}, and 2 {each}to find out how it answers"
    words = f"the audit will ask the server up to {questions} questions {of}"
    if args.yes:
        sys.stderr.write(f"{words}\n")
        return
    if not sys.stdin.isatty():
        raise ValueError(f"{words}; add --yes, or audit fewer: --num-episodes, --controls")
    sys.stderr.write(f"{words}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was asked")


def _print(result: progress.AuditRun, name: str) -> None:
    audits: Mapping[str, metrics.Audit] = {"model": result.audit, **result.beside}
    rows = [
        (words, *(str(audit.rows[row]) for audit in audits.values())) for row, words in metrics.ROWS.items() if not row.startswith(IN_FILE)
    ]
    table(_heading([each.success for each in result.curves], name), ("", *audits), rows)
    marks = {"passes": "yes", "fails": "NO", "cannot be said": "?"}
    evidence = _said_once([each.evidence for each in result.audit.properties])
    lines = [(marks[each.state], each.name, words) for each, words in zip(result.audit.properties, evidence, strict=True)]
    table("what it does", ("", "property", "evidence"), lines, sentences=True)
    if result.clocks:
        say(f"channels of the state that tell the time, kept running: {', '.join(map(str, result.clocks))}")
    for reason in dict.fromkeys(result.audit.missing.values()):
        say(f"controls left out ({reason}): {', '.join(name for name, why in result.audit.missing.items() if why == reason)}")
    if partial := result.partial():
        say(f"controls of some episodes alone: {', '.join(f'{name} ({count} of {len(result.curves)})' for name, count in partial.items())}")
    for other, audit in result.beside.items():
        say(f"{other}: {audit.verdict}")
    say(f"verdict: {result.audit.verdict}: {progress.verdict_in_words(result.audit.verdict, result.audit.reason)}")


def _heading(outcomes: Sequence[bool | None], name: str) -> str:
    """Returns the title of the numbers: how many episodes were audited, and how many of them most rows rest on."""
    good = sum(success is not False for success in outcomes)
    most = "" if good == len(outcomes) else f"; most rows rest on the {good} that succeeded or may have"
    return f"{count_noun(len(outcomes), 'episode')} of {name} (95 % intervals over episodes{most})"


def _said_once(reasons: Sequence[str]) -> list[str]:
    """Returns the reasons, of which one that is long and the same as the one before it is "the same reason"."""
    before = ["", *reasons]
    return ["the same reason" if each == last and len(each) > 60 else each for last, each in zip(before, reasons, strict=False)]


def _too_few(args: Args, dataset: datasets.LeRobotDataset) -> list[str]:
    """Returns, before anything is computed, why these episodes are too few for a verdict and what to type; nothing if they may do."""
    failed = [dataset.meta.episodes[index].facts.get("success") is False for index in dataset.episode_indices]
    if (usable := failed.count(False)) >= metrics.FEWEST:
        return []
    how_many = f"{usable} of these {'is' if usable == 1 else 'are'} such"
    return [_more_episodes(args, how_many, len(failed), len(dataset.meta.episodes))]


def _more_episodes(args: Args, how_many: str, audited: int, available: int) -> str:
    """Returns that a verdict needs more episodes than there are, and what to type. available: how many the dataset has."""
    words = f"it takes {metrics.FEWEST} episodes that succeeded, or may have, and {how_many}"
    if available <= audited:
        all_of_it = "this is the dataset's only episode" if available == 1 else f"these are all {available} of the dataset"
        return f"{words}; {all_of_it}: record more, or audit another dataset"
    instead = "" if args.episodes is None else " instead of --episodes"
    return f"{words}; to audit more: --num-episodes {min(available, max(USUAL, 2 * audited))}{instead}"


def _advice(args: Args, result: progress.AuditRun, available: int, *, is_said: bool) -> list[str]:
    """Returns what is missing for a verdict and what to type to get it, a line each; nothing if there is a verdict.

    available: how many episodes the dataset has. is_said: whether it was said at the start that they are too few.
    """
    if result.audit.verdict != "cannot be said":
        return []
    lacking, rows = _lacking(args.controls), ["rise"]
    lines = [f"for a verdict these controls are missing: {', '.join(lacking)}; to run them all: --controls all"] if lacking else []
    rows += [] if "frozen_first" in lacking else ["frozen"]
    rows += [] if "shuffled" in lacking else ["shuffled", "follow"]
    judged = min(result.audit.rows[row].episodes for row in rows)
    if is_said or judged >= metrics.FEWEST:
        return lines
    audited = len(result.curves) + len(result.unreadable)
    return [*lines, f"there is no verdict: {_more_episodes(args, f'{judged} could be judged', audited, available)}"]


def _lacking(controls: Sequence[str]) -> list[str]:
    """Returns the controls that are needed for a verdict and that these, which the caller named, are not. Nobody named any: none."""
    if controls in ((), ("all",)):
        return []
    frozen = [] if any(name.startswith("frozen_") for name in controls) else ["frozen_first"]
    return [*frozen, *({"shuffled"} - set(controls))]
