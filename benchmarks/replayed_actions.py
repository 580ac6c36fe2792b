"""Do a simulated demonstration's stored actions do what the demonstration did? Replayed in its start scene, each held for a whole frame.

    python benchmarks/replayed_actions.py [--attempts 12]

A frame has four commands. `first` stores the first of them, `mean` their mean, as the datasets do. Printed: how many of the attempts that
succeeded succeed again, and how far the replayed hand is from the demonstration's, on average.
"""

from __future__ import annotations

import argparse

import numpy as np

from milepost.sim.behaviours import KINDS, TREMOR, paced
from milepost.sim.rollout import trace_of
from milepost.sim.tasks import TASKS
from milepost.sim.world import EVERY, scripted, world

SHOWN = ("pick-place-v3", "shelf-place-v3", "peg-insert-side-v3", "assembly-v3")
SCENE = 7000


def done(task: str) -> bool:
    return bool(TASKS[task].done(trace_of([world(task).view()]))[0])


def attempt(task: str, kind: str, number: int) -> np.ndarray | None:
    """Every command (T, 4 commands, 4) until it has been done for five frames; None if that does not come."""
    told, place, rng = TASKS[task], world(task), np.random.default_rng([number, 1])
    script = KINDS[kind](told, paced(told, scripted(task)), place.reset(SCENE + number), rng)
    command, frames, streak = next(script), [], 0
    for _ in range(3 * told.usual):
        sent = []
        for _ in range(EVERY):
            sent.append(np.clip(command + np.append(rng.normal(0, TREMOR, 3), 0), -1, 1))
            place.step(sent[-1])
            command = script.send(place.view())
        frames.append(sent)
        streak = streak + 1 if done(task) else 0
        if streak == 5:
            return np.array(frames)
    return None


def replayed(task: str, number: int, commands: np.ndarray) -> tuple[bool, np.ndarray]:
    """Was it done for three frames in a row, and where was the hand (T, 3), under these commands (T, 4 commands, 4)?"""
    place, streak, ever, hands = world(task), 0, False, []
    place.reset(SCENE + number)
    for frame in [*commands, *commands[-1:].repeat(5, axis=0)]:
        for command in frame:
            place.step(command)
        hands.append(place.view().hand)
        streak = streak + 1 if done(task) else 0
        ever = ever or streak >= 3
    return ever, np.array(hands[: len(commands)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=12)
    count = parser.parse_args().attempts
    print("| task | kind | attempts | first: again, cm off | mean: again, cm off |\n|---|---|---|---|---|")
    for task in SHOWN:
        for kind in ("expert", "slow", "hesitating", "backtracking"):
            found = [(number, attempt(task, kind, number)) for number in range(count)]
            cells = []
            for store in (lambda sent: sent[:, :1], lambda sent: sent.mean(axis=1, keepdims=True)):
                again, off = 0, []
                for number, sent in found:
                    if sent is not None:
                        ever, hands = replayed(task, number, store(sent).repeat(EVERY, axis=1))
                        again += ever
                        off.append(np.linalg.norm(hands - replayed(task, number, sent)[1], axis=1).mean())
                cells.append(f"{again}, {100 * np.mean(off):.2f}")
            print(f"| {task} | {kind} | {sum(sent is not None for _, sent in found)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
