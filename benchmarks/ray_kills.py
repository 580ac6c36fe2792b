"""Random kills of a labelling on a Ray cluster: is anything lost, or in the file twice, and what is computed again?

    python benchmarks/ray_kills.py [--kills 40] [--episodes 200] [--seed 0] [--output benchmarks/ray_kills.jsonl]

It writes a dataset of small episodes and labels it with two processes of a cluster that `ray start --head` started. SIGKILL comes at
random moments to a process that holds the model, to the command, or to every process of the cluster at once. A command that ended without
its file is started again with the same words, and so is a cluster. When a labelling is done before all kills were made, its file is checked
and removed, and another begins. Each file must have each frame once and be byte-equal to the one of a single process with one thread.
The model notes each episode that it begins and ends, so what was begun again after a kill is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from milepost.testing import dot_episodes, write_dots
from ray_world import Head, Note, end, environment, install, notes

KINDS = ("process", "command", "cluster")
SLEEP_S = 0.12
LONGEST_S = 300.0


@dataclass
class Kill:
    """One kill. labelling: in which one. at: when, in seconds since 1970. again: episodes begun before it that were begun again after it.
    unfinished: those of them that no process had finished. ended_s: how long the command lived on, None if it went on."""

    kind: str
    labelling: int
    at: float
    again: int = 0
    unfinished: int = 0
    ended_s: float | None = None


class Run:
    """A labelling that is killed. folder: has the dataset `dots` and all else."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.variables = environment(folder, sleep_s=SLEEP_S)
        self.head = Head(folder / "ray", self.variables)
        self.command: subprocess.Popen | None = None
        self.begun_at, self.starts, self.codes = 0.0, 0, list[int]()

    def label(self, output: str, *words: str, **variables: str) -> subprocess.Popen:
        """Starts `milepost label`."""
        line = [sys.executable, "-m", "milepost", "label", "dots", "--model", "noted", "--output-path", output, *words]
        with (self.folder / "words.txt").open("a") as text:
            return subprocess.Popen(line, cwd=self.folder, env={**self.variables, **variables}, stdout=text, stderr=text)

    def go_on(self) -> None:
        """Starts the command again."""
        self.starts += 1
        self.begun_at = time.time()
        self.command = self.label("killed.parquet", "--ray", self.head.address, "--actors", "2")

    def wait_until_ended(self, longest_s: float = LONGEST_S) -> float:
        """Waits for the command and returns the seconds that it took; a command that does not end is an error of the benchmark."""
        assert self.command is not None
        start = time.monotonic()
        self.codes.append(self.command.wait(longest_s))
        return time.monotonic() - start

    def under_way(self) -> list[Note]:
        """Returns what the model has noted since the command was started."""
        return [each for each in notes(self.folder / "log") if each.time > self.begun_at]

    def moment(self, kind: str) -> bool:
        """Waits for a random moment; returns whether the command still runs. One kill of four comes while the command starts."""
        assert self.command is not None
        if kind != "process" and self.chance.random() < 0.25:
            time.sleep(self.chance.uniform(0.5, 8.0))
        else:
            while not self.under_way() and self.command.poll() is None:
                time.sleep(0.1)
            time.sleep(self.chance.uniform(0.1, 6.0))
        return self.command.poll() is None

    def kill(self, kind: str, labelling: int) -> Kill:
        """Kills, and starts again what does not go on by itself."""
        assert self.command is not None
        done = Kill(kind, labelling, time.time())
        if kind == "process":
            pids = sorted({each.pid for each in self.under_way()[-8:]})
            end(self.chance.choice(pids))
        elif kind == "command":
            end(self.command.pid)
            done.ended_s = self.wait_until_ended()
            self.go_on()
        else:
            self.head.kill()
            done.ended_s = self.wait_until_ended()
            self.head.start()
            self.go_on()
        return done


def count(kills: list[Kill], all_notes: list[Note]) -> None:
    """Notes at each kill what was begun again after it, and before the next one."""
    first = {}
    for each in all_notes:
        if each.word == "begin":
            before = [kill for kill in kills if kill.at < each.time]
            if each.episode in first and before:
                before[-1].again += 1
                ended = any(x.word == "end" and x.episode == each.episode and x.time < before[-1].at for x in all_notes)
                before[-1].unfinished += not ended
            first.setdefault(each.episode, each.time)


def run(folder: Path, kinds: list[str], chance: random.Random, keep: Callable[[dict], None]) -> tuple[list[Kill], list[dict]]:
    """Makes the kills. Returns them, and what each labelling came to. keep: gets a row for each labelling and kill."""
    every, labellings = Run(folder, chance), list[dict]()
    whole = every.label("whole.parquet", OMP_NUM_THREADS="1")
    if whole.wait() != 0:
        raise RuntimeError((folder / "words.txt").read_text()[-2000:])
    kills, waiting = list[Kill](), list(kinds)
    every.head.start()
    while waiting or not labellings:
        (folder / "log").unlink()
        mine, begun, every.starts, every.codes = list[Kill](), time.monotonic(), 0, []
        every.go_on()
        while waiting and every.moment(waiting[0]):
            mine.append(every.kill(waiting.pop(0), len(labellings)))
            print(f"{len(kills) + len(mine)} of {len(kinds)}: {mine[-1].kind}; {len({x.episode for x in every.under_way()})}", flush=True)
        every.wait_until_ended()
        all_notes = notes(folder / "log")
        count(mine, all_notes)
        kills += mine
        labellings.append({**checked(folder, all_notes), "kills": len(mine), "starts": every.starts, "codes": every.codes})
        labellings[-1]["seconds"] = round(time.monotonic() - begun, 1)
        print(labellings[-1], flush=True)
        for row in (labellings[-1], *map(asdict, mine)):
            keep(row)
    every.head.kill()
    return kills, labellings


def checked(folder: Path, all_notes: list[Note]) -> dict:
    """Returns what the file of a labelling is like, and removes it."""
    path = folder / "killed.parquet"
    table, whole = pq.read_table(path), pq.read_table(folder / "whole.parquet")
    index, right = table["index"].to_pylist(), whole["index"].to_pylist()
    outcome = {
        "lost": len(set(right) - set(index)),
        "twice": len(index) - len(set(index)),
        "equal_bytes": path.read_bytes() == (folder / "whole.parquet").read_bytes(),
        "left_over": sorted(each.name for each in folder.glob("*killed*") if each != path and not each.name.endswith(".lock")),
        "begun": sum(each.word == "begin" for each in all_notes),
    }
    path.unlink()
    return outcome


def report(kills: list[Kill], labellings: list[dict]) -> None:
    """Prints the table of docs/ray.md."""
    print("| killed | kills | begun again a kill, mean (most) | of them not finished before | the command ended after, median (most) |")
    print("|---|---|---|---|---|")
    for kind in KINDS:
        of_kind = [each for each in kills if each.kind == kind]
        again, ended = [each.again for each in of_kind], [each.ended_s for each in of_kind if each.ended_s is not None]
        took = f"{statistics.median(ended):.1f} s ({max(ended):.1f} s)" if ended else "goes on"
        if again:
            unfinished = statistics.mean(each.unfinished for each in of_kind)
            print(f"| {kind} | {len(again)} | {statistics.mean(again):.1f} ({max(again)}) | {unfinished:.1f} | {took} |")
    lost, twice, equal = (sum(each[name] for each in labellings) for name in ("lost", "twice", "equal_bytes"))
    print(f"{len(labellings)} labellings: {lost} frames lost, {twice} twice, {equal} files byte-equal to one process's")


def append(path: Path | None, seed: int, row: dict) -> None:
    """Adds a row to the file of results."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"seed": seed, **row}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    kinds = [KINDS[place % len(KINDS)] for place in range(args.kills)]
    chance.shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="rk") as name:
        folder = Path(name)
        (folder / "ray").mkdir()
        install(folder / "site")
        write_dots(folder / "dots", dot_episodes(args.episodes, seed=args.seed))
        try:
            kills, labellings = run(folder, kinds, chance, partial(append, args.output, args.seed))
        except BaseException:
            print((folder / "words.txt").read_text()[-6000:], file=sys.stderr)
            raise
        report(kills, labellings)


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main()
