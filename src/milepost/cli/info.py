"""Show the content of a dataset, or of several, and its faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from milepost import datasets
from milepost.cli.console import say, warn
from milepost.cli.next_step import Have, next_lines
from milepost.cli.several_datasets import Answer, DatasetsFile, MoreDatasets, are_several, each_dataset, names_of, with_listed
from milepost.core import DataError, to_json

LINES = 10
LOOKS = {"error": ("red", "✗"), "warning": ("yellow", "!"), "note": ("cyan", "·")}


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """A LeRobot dataset: a folder, or a Hub id such as lerobot/pusht."""
    more_datasets: MoreDatasets = ()
    """Further datasets."""
    datasets_file: DatasetsFile = None
    """A text file with one dataset a line, as many as there are; folders are looked for beside it, and "-" is standard input."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    quick: bool = False
    """Decode no images. By default the first, a middle and the last image of each episode are decoded."""
    deep: bool = False
    """Decode every image."""
    json: bool = False
    """Print one JSON object."""


rewritten = with_listed


def main(args: Args) -> int:
    """Prints the report, or one for each dataset. Exit code 0: no error (there may be warnings). 1: errors. 2: no dataset."""
    if are_several(args):
        return each_dataset(args, names_of(args), partial(_examine, args), {}, ascii_only=False)
    try:
        return _examine(args, args.dataset, lambda report: say(to_json(report, ascii_only=False)))
    except DataError as error:
        warn(f"milepost info: {error}")
        return 2


def _examine(args: Args, name: str, answer: Answer) -> int:
    """Prints the report of one dataset; returns 1 if it has errors. answer: takes what `--json` prints. DataError if there is none."""
    report = datasets.validate(name, quick=args.quick, deep=args.deep, revision=args.revision)
    if args.json:
        answer(report.to_dict())
    else:
        show(report)
        say(next_lines(have(report, name)))
    return 0 if report.healthy else 1


def have(report: datasets.DatasetReport, name: str) -> Have:
    """Returns what the dataset has, for the next step."""
    numbers = {each.episode for each in report.findings if each.severity == "error"}
    damaged = sorted(number for number in numbers if number is not None) if None not in numbers else []
    if len(damaged) == report.episodes:  # nothing would stay
        damaged = []
    progress, weights = ([Path(each).name for each in files] for files in (report.progress_files, report.weight_files))
    return Have(name, progress, weights, sorted(report.annotated, reverse=True), bool(numbers), damaged, report.version)


def show(report: datasets.DatasetReport) -> None:
    """Prints a headline, the content of the dataset, the findings by kind, and the verdict."""
    facts = [f"LeRobot {report.version}", _count(report.episodes, "episode"), _count(report.frames, "frame")]
    facts += [_time(report.duration_s), f"{report.fps:g} fps", *([report.robot] if report.robot else [])]
    say(f"{report.name}: {' · '.join(facts)}\n", style="bold")
    for name, values in _content(report):
        for place, value in enumerate(_few(values)):
            say(f"{'' if place else name:<15}{value}")
    for severity in LOOKS:
        for code in dict.fromkeys(finding.code for finding in report.findings if finding.severity == severity):
            _show_group([f for f in report.findings if (f.code, f.severity) == (code, severity)])
    counts = [_count(report.count(kind), kind) for kind in LOOKS if report.count(kind)]
    verdict = f"✓ {', '.join(['no errors', *counts])}" if report.healthy else f"✗ {', '.join(counts)}"
    say(f"\n{verdict}", style="bold green" if report.healthy else "bold red")


def _content(report: datasets.DatasetReport) -> list[tuple[str, list[str]]]:
    size = {camera.name: f"{camera.width} x {camera.height}" if camera.width else "size unknown" for camera in report.cameras}
    rows = [
        ("tasks", [f"{task}  ({_count(count, 'episode')})" for task, count in report.tasks.items()]),
        ("cameras", [f"{c.name}  {size[c.name]} {c.codec or c.kind}" for c in report.cameras]),
        *([("distances", [f"{name}  by name alone" for name in report.depth])] if report.depth else []),
        ("state, action", [f"{_width(report.state)}, {_width(report.action)}"]),
        ("annotated", [_annotated(report, head) for head in report.annotated]),
        ("successes", [f"{report.succeeded} of {report.judged}" if report.judged else "not recorded"]),
        ("progress", list(report.progress_files)),
        ("weights", list(report.weight_files)),
    ]
    return [(name, values or ["none"]) for name, values in rows]


def _annotated(report: datasets.DatasetReport, head: str) -> str:
    """Returns how many episodes have an annotation of this head that can be used, and how many have another one."""
    broken = f"; of {_count(report.unusable[head], 'episode')} it cannot be used" if head in report.unusable else ""
    return f"{head}: {report.annotated[head]} of {_count(report.episodes, 'episode')}{broken}"


def _show_group(findings: Sequence[datasets.Finding]) -> None:
    colour, sign = LOOKS[findings[0].severity]
    say(f"\n{sign} {findings[0].code} ({len(findings)})", style=colour)
    for line in _few([f"episode {f.episode}: {f.message}" if f.episode is not None else f.message for f in findings]):
        say(f"  {line}")


def _few(lines: Sequence[str]) -> list[str]:
    more = len(lines) - LINES
    return list(lines) if more <= 0 else [*lines[:LINES], f"and {more} more"]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _width(channels: int | None) -> str:
    return "none" if channels is None else _count(channels, "channel")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
