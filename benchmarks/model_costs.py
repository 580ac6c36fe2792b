"""What an hour of video costs each model, as counts: frames decoded, questions, answers. Nothing is timed and no VLM is loaded.

    python benchmarks/model_costs.py                      # the table of docs/models.md
    python benchmarks/model_costs.py --seconds 60         # the same hour in episodes of a minute

The counts are those of the models themselves: the frames that they look at, and the questions that they would ask a server.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import milepost


def rows(seconds: float = 10.0, fps: float = 30.0) -> list[tuple[str, str, str]]:
    """Returns (model, frames looked at, questions) for one hour in episodes of `seconds`; of the trained models per camera."""
    length, episodes = round(seconds * fps), round(3600 / seconds)
    episode = milepost.Episode(0, 0, "go", fps, length, np.zeros((length, 1), np.float32))
    asked: dict[str, Any] = {
        "topreward": milepost.TOPRewardModel(milepost.TOPRewardConfig()),
        "roboreward": milepost.RoboRewardModel(milepost.RoboRewardConfig()),
        "robometer": milepost.RobometerModel(milepost.RobometerConfig()),
        "robometer, published": milepost.RobometerModel(milepost.RobometerConfig(frame_protocol="published")),
        "gvl": milepost.GVLModel(milepost.GVLConfig()),
    }
    found = [("sarm, value, success", f"{episodes * length:,}", "0"), ("elapsed", "0", "0")]
    for name, model in asked.items():
        frames = len(model.looked_at(length, fps)[0])
        questions = model.questions(episode, None)
        found.append((name, f"{episodes * frames:,}", f"{episodes * questions:,}"))
    return found


def table(seconds: float = 10.0, fps: float = 30.0) -> str:
    """Returns the counts as a table in Markdown."""
    head = ["| `--model` | frames looked at | questions to the VLM |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows(seconds, fps))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of an episode")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second of the dataset")
    options = parser.parse_args()
    print(table(options.seconds, options.fps))
