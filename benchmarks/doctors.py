"""Checkers of LeRobot datasets side by side: the same sixty damaged and sixty sound datasets through each of them.

    python -m benchmarks.doctors FOLDER --lerobot-python PYTHON --tool lerobot-doctor=PYTHON --tool robovet=PYTHON \\
        --tool lerobot-lint=PYTHON --tool milepost=PYTHON
    python -m benchmarks.doctors --page docs/beside_others.md

The first makes the datasets in FOLDER where they are not yet, runs each tool that is named with its own Python (milepost alone
where none is), and writes a line for each dataset and tool to --out; `--label before` says which state of milepost it was.
A tool is called as its README says: `lerobot-doctor check DATASET --json`, `robovet doctor DATASET` and `robovet score DATASET`,
`lelint check DATASET`, `milepost info DATASET`. What each tool calls an error, and what it calls a warning, are counted; what is less than
a warning is not. Of a damaged dataset only those alarms count that the tool does not raise on the sound dataset that was damaged. A damage
is named where one of these alarms has a word that belongs to it (`doctor_damage.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.doctor_damage import BASES, GROUPS
from benchmarks.doctor_data import make
from benchmarks.doctor_sound import RECIPES

OUT = Path(__file__).with_suffix(".jsonl")
HERE = Path(__file__).parent
TOOLS = ("lerobot-doctor", "robovet", "lerobot-lint", "milepost")
STORED = 2
"""Alarms of a dataset that a line keeps."""


def make_all(folder: Path, lerobot_python: str | None) -> None:
    """Makes the datasets that are missing in `sound`, `bases` and `damaged`."""
    for place in ("sound", "bases", "damaged"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for seed, (place, recipe) in enumerate([("sound", each) for each in RECIPES] + [("bases", each) for each in BASES]):
        if not (folder / place / recipe.name).exists():
            make(folder / place / recipe.name, recipe, seed)
    for group in GROUPS:
        for variant in range(len(group.variants)):
            damage(folder, group.name, variant)
    if lerobot_python and not list((folder / "sound").glob("LeRobot*")):
        subprocess.run([lerobot_python, str(HERE / "doctors_lerobot.py"), "make", str(folder / "lerobot")], check=True)
        for made in (folder / "lerobot").iterdir():
            made.rename(folder / "sound" / made.name)


def damage(folder: Path, name: str, variant: int) -> Path:
    """Returns the dataset with a damage; makes it where it is missing."""
    root = folder / "damaged" / f"{name} {variant}"
    if not root.exists():
        shutil.copytree(folder / "bases" / BASES[variant].name, root)
        next(group for group in GROUPS if group.name == name).variants[variant][1](root)
    return root


def answers(tool: str, python: str, folders: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Returns what a tool says of each dataset. Where its process dies, that is the answer, and another one goes on with the next."""
    out: dict[Path, dict[str, Any]] = {}
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    while len(out) < len(folders):
        left = folders[len(out) :]
        words = [python, str(HERE / "doctor_calls.py"), tool, *map(str, left)]
        ended = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"dataset"')]
        if not out and not lines:
            raise SystemExit(f"{tool} does not run: {ended.stderr[-500:]}")
        out |= {Path(line["dataset"]): line for line in lines}
        if len(lines) < len(left):
            out[left[len(lines)]] = {**lines[-1], "alarms": [["stopped", f"the process ended with {ended.returncode}"]]} if lines else {}
    return out


def judged(group_words: str, alarms: Iterable[Sequence[str]], before: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Returns how a damage is named ("error", "warning" or ""), whether there is any alarm, and the alarms that are new."""
    old = {text for _, text in before}
    new = [(kind, text) for kind, text in alarms if text not in old]
    naming = [(kind, text) for kind, text in new if re.search(group_words, text.lower())]
    kinds = {"error" if kind == "stopped" else kind for kind, _ in naming}
    named = next((kind for kind in ("error", "warning") if kind in kinds), "")
    return {"named": named, "alarm": bool(new), "alarms": [list(each) for each in [*naming, *(n for n in new if n not in naming)][:STORED]]}


def lines_of(tool: str, python: str, folder: Path) -> list[dict[str, Any]]:
    """Returns a line for each dataset: what a tool makes of it."""
    sound = sorted((folder / "sound").iterdir())
    damaged = [
        (group, variant, folder / "damaged" / f"{group.name} {variant}") for group in GROUPS for variant in range(len(group.variants))
    ]
    bases = [folder / "bases" / base.name for base in BASES]
    said_of = answers(tool, python, [*sound, *bases, *(path for _, _, path in damaged)])
    lines = []
    for path in sound:
        alarms = said_of[path]["alarms"]
        counts = {
            kind: sum(one in names for one, _ in alarms)
            for kind, names in {"errors": ("error", "stopped"), "warnings": ("warning",)}.items()
        }
        lines.append({"dataset": path.name, "sound": True, **counts, "alarms": alarms[:STORED], "seconds": said_of[path]["seconds"]})
    for group, variant, path in damaged:
        new = judged(group.words, said_of[path]["alarms"], said_of[bases[variant]]["alarms"])
        what = {"dataset": path.name, "sound": False, "damage": group.variants[variant][0]}
        lines.append(what | new | {"seconds": said_of[path]["seconds"]})
    version = said_of[sound[0]]["version"]
    for line in lines:
        line["alarms"] = [[kind, text[:160]] for kind, text in line["alarms"]]
    return [{"tool": tool, "version": version} | line for line in lines]


def read(out: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file; none where there is none."""
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []


def summary(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all tools."""
    rows = ["| checker | damage named as an error | or as a warning | some alarm | sound: an error | or a warning | s of the processor |"]
    rows.append("|---|---|---|---|---|---|---|")
    for tool in _tools(lines):
        mine = [line for line in lines if line["tool"] == tool]
        sound, damaged = ([line for line in mine if line["sound"] is kind] for kind in (True, False))
        numbers = [
            sum(line["named"] == "error" for line in damaged),
            sum(bool(line["named"]) for line in damaged),
            sum(line["alarm"] for line in damaged),
        ]
        false = [sum(line["errors"] > 0 for line in sound), sum(line["errors"] + line["warnings"] > 0 for line in sound)]
        took = statistics.median(line["seconds"] for line in mine)
        cells = [*(f"{n} of {len(damaged)}" for n in numbers), *(f"{n} of {len(sound)}" for n in false), f"{took:.2f}"]
        rows.append(f"| {tool} {mine[0]['version'] if not tool.startswith('milepost') else ''} | " + " | ".join(cells) + " |")
    return "\n".join(rows).replace("  |", " |")


def by_damage(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of all damages: E named as an error, W as a warning, o another alarm."""
    tools = _tools(lines)
    marks = {
        (line["tool"], line["dataset"]): {"error": "E", "warning": "W"}.get(line["named"], "o" if line["alarm"] else "")
        for line in lines
        if not line["sound"]
    }
    rows = ["| group | damage | " + " | ".join(tools) + " |", "|---|---|" + "---|" * len(tools)]
    for group in GROUPS:
        for variant, (what, _) in enumerate(group.variants):
            cells = [marks.get((tool, f"{group.name} {variant}"), "?") for tool in tools]
            rows.append(f"| {group.name if not variant else ''} | {what} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def sources() -> str:
    """Returns where each group of damages is reported."""
    return "\n".join(f"- {group.name}: {group.source}" for group in GROUPS)


def _tools(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(line["tool"] for line in lines)
    return sorted(names, key=lambda name: ([*TOOLS, name].index(name.split(",")[0]), name != "milepost, before"))


def put(page: Path, name: str, text: str) -> None:
    """Writes a text between the page's marks of this name."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.read_text("utf-8").partition(start)
    page.write_text(before + start + "\n" + text + "\n" + end + rest.partition(end)[2], "utf-8")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--lerobot-python")
    parser.add_argument("--label", default="", help="the state of milepost: before")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", type=Path)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Makes the datasets and runs the tools, or writes the tables into a page."""
    args = arguments(words)
    if args.folder:
        make_all(args.folder, args.lerobot_python)
        for tool, python in [tuple(each.split("=", 1)) for each in args.tool] or [("milepost", sys.executable)]:
            name = f"{tool}, {args.label}" if args.label else tool
            new = [line | {"tool": name} for line in lines_of(tool, python, args.folder)]
            lines = [line for line in read(args.out) if line["tool"] != name] + new
            args.out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
            print(summary(new), flush=True)
    if args.page:
        lines = read(args.out)
        for name, text in {"checkers": summary(lines), "damages": by_damage(lines), "reports": sources()}.items():
            put(args.page, name, text)


if __name__ == "__main__":
    main()
