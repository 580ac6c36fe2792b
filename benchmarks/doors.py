"""How long a user waits for help: processor time of `milepost VERB --help`, beside that of `milepost info --help`.

    python benchmarks/doors.py

Every verb is started five times, in turns; the least user time of each counts. The target is at most twice that of `info`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from milepost.cli.entry import VERBS

ROUNDS = 5


def seconds(verb: str) -> float:
    """Returns the processor seconds, user and system, of one process that prints a verb's help."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "milepost", verb, "--help"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for _ in range(ROUNDS):
        for verb, times in taken.items():
            times.append(seconds(verb))
    least = {verb: min(times) for verb, times in taken.items()}
    print("| verb | processor time (s) | beside info |\n|---|---|---|")
    for verb, time_s in sorted(least.items(), key=lambda each: each[1]):
        print(f"| {verb} | {time_s:.2f} | {time_s / least['info']:.2f} |")


if __name__ == "__main__":
    main()
