"""What a run says while it goes: `log.jsonl` always, TensorBoard, Weights & Biases or Trackio only if asked for.

One line a step, flushed as it is written. A resumed run cuts the file back to the step it goes on from. Nothing is imported that was not
asked for, and nothing is sent anywhere but to the tracker that was.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from milepost.core import WORKING, DataError, parse_json, read_text, refuses_unknown_options, require, to_json, warn_user, write_text

LOG = "log.jsonl"
NAME_BYTES = 100
"""Of a run's name in its id: ids have at most 128 characters, and become names of files."""
Tracker = Literal["tensorboard", "wandb", "trackio"]
Line = dict[str, int | float]
LineWriter = Callable[[Line], None]


@refuses_unknown_options()
@dataclass(frozen=True)
class Tracking:
    """Where a run is shown besides `log.jsonl`, and under what names."""

    to: tuple[str, ...] = ()
    project: str = "milepost"
    run_name: str | None = None
    """Default: the name of the model folder."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.to if name not in get_args(Tracker)]
        if unknown:
            raise ValueError(f"there is no tracker '{unknown[0]}'; choose from {', '.join(get_args(Tracker))}")


def require_trackers(tracking: Tracking) -> None:
    """Raises DataError now, before hours of work, if a package asked for is not installed, or if W&B would refuse the run."""
    for name in tracking.to:
        _package(name)
    if "wandb" in tracking.to:
        _require_wandb(tracking)


def _require_wandb(tracking: Tracking) -> None:
    """Raises DataError if W&B refuses the names, has no key, or cannot be reached; a terminal is asked for a missing key."""
    wandb = _package("wandb")
    entity, project = _owned(tracking.project)
    try:
        wandb.Settings(entity=entity, project=project)
        if wandb.setup().settings.mode not in ("offline", "dryrun", "disabled"):
            wandb.login(verify=True)
    except (wandb.Error, ValueError) as error:
        raise DataError(
            f"Weights & Biases refuses this run: {_first_line(error)}. Mend that (wandb login, --project NAME or TEAM/NAME), set "
            "WANDB_MODE=offline, or leave out --log-to wandb: log.jsonl has the same numbers"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _owned(project: str) -> tuple[str | None, str]:
    """Returns (team or None, project) of "project" or "team/project"."""
    team, _, name = project.rpartition("/")
    return team or None, name


def run_id(name: str, key: str) -> str:
    """Returns a run's id, as trackers and file systems take it, from the name that people see. `key` keeps two runs apart.

    >>> run_id("sarm: towels #2", "4f")
    'sarm- towels -2-4f'
    """
    fit = re.sub(r"[:;,#?/'\\%\x00-\x1f\x7f]", "-", name).encode()[:NAME_BYTES].decode(errors="ignore").strip()
    return f"{fit or 'run'}-{key}"


def _package(name: str) -> ModuleType:
    if name in WORKING:
        require(name)
    try:
        importlib.import_module(name)
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ModuleNotFoundError as error:
        raise DataError(f"logging to {name} needs its package: pip install {error.name or name}, or 'milepost[tracking]'") from error


class Log:
    """The log of one run, open: `with Log(...) as log: log.write(line)`. `key` names the run, so that a resumed one is the same one."""

    def __init__(self, folder: Path, tracking: Tracking, *, start: int, key: str, settings: Mapping[str, Any]) -> None:
        path = folder / LOG
        write_text(path, "".join(to_json(line) + "\n" for line in _lines(path) if line["step"] < start))
        self._file = path.open("a", encoding="utf-8")
        name = tracking.run_name or folder.resolve().name
        plain = {k: v if isinstance(v, (int, float, str, bool, type(None))) else str(v) for k, v in settings.items()}
        openers = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
        writers = [openers[to](folder, (tracking.project, name, key), start, plain) for to in tracking.to]
        self._reports, self._closers = [report for report, _ in writers], [close for _, close in writers]

    def write(self, line: Line) -> None:
        """Writes one step's numbers, among them `step`."""
        self._file.write(to_json(line) + "\n")
        self._file.flush()
        for report in self._reports:
            report(line)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()
        for close in self._closers:
            close()


def _lines(path: Path) -> list[Line]:
    """Returns the lines of the log. What follows a line that is none (cut short by a crash, damaged) is left out."""
    lines: list[Line] = []
    for text in read_text(path, what="log").splitlines() if path.exists() else []:
        try:
            line = parse_json(text, source="a line of the log")
        except DataError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


Names = tuple[str, str, str]
"""Project, run, and the key of the run."""


def _tensorboard(folder: Path, names: Names, start: int, settings: dict[str, Any]) -> tuple[LineWriter, Callable[[], None]]:
    """Opens event files in `<folder>/tensorboard`. Events of steps that a resumed run repeats are marked as void."""
    writer = _package("tensorboard").SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)
    writer.add_text("settings", to_json(settings, indent=2), start)

    def report(line: Line) -> None:
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, int(line["step"]))

    return report, writer.close


def _wandb(folder: Path, names: Names, start: int, settings: dict[str, Any]) -> tuple[LineWriter, Callable[[], None]]:
    """Opens a run, offline with WANDB_MODE=offline: it is then a folder in `<folder>/wandb`. A resumed run continues under the same id.

    What W&B refuses here could not be known before (`require_trackers`): it costs its curves and not the run.
    """
    project, name, key = names
    wandb = _package("wandb")
    (team, project), run = _owned(project), None
    try:
        run = wandb.init(
            entity=team, project=project, name=name[:128], id=run_id(name, key), resume="allow", dir=str(folder), config=settings
        )
    except wandb.Error as error:
        words = f"Weights & Biases refuses this run: {_first_line(error)}; it goes on without, {LOG} has its numbers"
        warn_user(words, UserWarning)

    def report(line: Line) -> None:
        if run is not None:
            run.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    return report, (lambda: None) if run is None else run.finish


def _trackio(folder: Path, names: Names, start: int, settings: dict[str, Any]) -> tuple[LineWriter, Callable[[], None]]:
    project, name, key = names
    trackio = _package("trackio")
    trackio.init(project=project, name=run_id(name, key), resume="allow", config=settings)

    def report(line: Line) -> None:
        trackio.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    return report, trackio.finish
