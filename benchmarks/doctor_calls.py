"""Calls a checker on one dataset after another in one process, so that its start is paid once.

It needs the standard library alone, so the Python of any tool runs it:

    TOOL_PYTHON benchmarks/doctor_calls.py TOOL FOLDER ... >> lines.jsonl

A line for each folder: exit status, what it reported as JSON, what it printed, and the seconds of the processor that it took.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.metadata
import io
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Alarms = list[tuple[str, str]]
"""Severity ("error" or "warning") and text."""

OUT = Path(tempfile.mkdtemp(prefix="doctor_calls_"))


def _lerobot_doctor(printed: str) -> Alarms:
    report = json.loads(printed[printed.index("{") :])
    words = {"FAIL": "error", "WARN": "warning"}
    messages = [message | {"name": check["name"]} for check in report["checks"] for message in check["messages"]]
    return [(words[one["severity"]], f"{one['name']}: {one['message']}") for one in messages if one["severity"] in words]


def _robovet(printed: str) -> Alarms:
    report = json.loads((OUT / "report.json").read_text("utf-8"))
    words = {"FAIL": "error", "WARN": "warning"}
    results = report.get("results") or report.get("findings") or []
    alarms = [
        (words[one["severity"]], f"{one['check_id']} {one['title']}: {one['summary']}") for one in results if one["severity"] in words
    ]
    if (OUT / "scores.csv").exists():
        rows = list(csv.DictReader((OUT / "scores.csv").read_text("utf-8").splitlines()))
        alarms += [("warning", f"score: {row}") for row in rows if row.get("flags")]
    return alarms


def _lelint(printed: str) -> Alarms:
    report = json.loads((OUT / "report.json").read_text("utf-8"))
    return [
        (one["severity"], f"{one['check']} episode {one['episode']}: {one['message']}")
        for one in report["findings"]
        if one["severity"] in ("error", "warning")
    ]


def _milepost(printed: str) -> Alarms:
    report = json.loads(printed[printed.index("{") :])
    return [
        (one["severity"], f"{one['code']} episode {one['episode']}: {one['message']}")
        for one in report["findings"]
        if one["severity"] in ("error", "warning")
    ]


REPORT = str(OUT / "report.json")
TOOLS: dict[str, tuple[str, list[list[str]], Callable[[str], Alarms]]] = {
    "lerobot-doctor": ("lerobot_doctor.cli:main", [["check", "{}", "--json"]], _lerobot_doctor),
    "robovet": ("robovet.cli:app", [["doctor", "{}", "--json", REPORT], ["score", "{}", "--csv", str(OUT / "scores.csv")]], _robovet),
    "lerobot-lint": ("lerobot_lint.cli:app", [["check", "{}", "--json", REPORT]], _lelint),
    "milepost": ("milepost.cli.entry:main", [["info", "{}", "--json"]], _milepost),
}
"""Each tool: its entry point, its commands, and how its alarms are read."""


def call(entry: str, words: Sequence[str]) -> tuple[int, str, str]:
    """Returns the exit status of a command line called in this process, and what it printed to both streams."""
    module, name = entry.split(":")
    main, out, err = getattr(importlib.import_module(module), name), io.StringIO(), io.StringIO()
    sys.argv = [module.split(".")[0], *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(words)) if entry.startswith("milepost") else main()
        except SystemExit as stop:
            status = stop.code
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError):
            traceback.print_exc()
            status = 70
    return int(status or 0) if not isinstance(status, str) else 1, out.getvalue(), err.getvalue()


def examine(tool: str, folder: Path) -> dict[str, Any]:
    """Returns what a tool says of one dataset. Where it stopped without a report, its last words are one alarm, "stopped"."""
    entry, commands, alarms_of = TOOLS[tool]
    for old in OUT.glob("*"):
        old.unlink()
    before, printed, words_last, statuses = time.process_time(), "", "", []
    for words in commands:
        status, out, err = call(entry, [word.format(folder) for word in words])
        statuses.append(status)
        printed += out
        words_last = words_last or ((err or out).strip() if status else "")
    took = time.process_time() - before
    try:
        alarms = alarms_of(printed)
    except (ValueError, KeyError, OSError):
        alarms = [("stopped", " ".join((words_last or printed).split())[-300:])]
    return {
        "exit": statuses[0],
        "alarms": [(kind, text.replace(str(folder), "DATASET")) for kind, text in alarms],
        "seconds": round(took, 3),
    }


def main(tool: str, folders: Sequence[str]) -> None:
    """Prints one line of JSON for each dataset."""
    version = importlib.metadata.version(tool)
    call(TOOLS[tool][0], ["--help"])
    for folder in folders:
        print(json.dumps({"dataset": folder, "tool": tool, "version": version, **examine(tool, Path(folder))}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
