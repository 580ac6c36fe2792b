"""LeRobot's programs under their own names, for `python -m milepost.rewards.sarm.compute_rabc_weights` and the like."""

from __future__ import annotations

import sys

from milepost.cli.entry import main, quiet_others


def compute_rabc_weights(model: str) -> int:
    """Runs `milepost label` with the options of LeRobot's program of this name; returns the exit code. model: "sarm" or "topreward".

    As in LeRobot, SARM's draws the first five episodes unless `--num-visualizations` says otherwise, and TOPReward's needs no model folder.
    """
    quiet_others()
    arguments = sys.argv[1:]
    flags = {word.partition("=")[0].replace("_", "-") for word in arguments}
    if model == "topreward" and not flags & {"--reward-model-path", "--model"}:
        arguments = ["--model", "topreward", *arguments]
    if model == "sarm" and not flags & {"--num-visualizations", "--visualize-only", "--help", "-h"}:
        arguments = [*arguments, "--num-visualizations", "5"]
    return main(["label", *arguments], program=f"python -m milepost.rewards.{model}.compute_rabc_weights")
