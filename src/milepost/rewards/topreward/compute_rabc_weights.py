"""`python -m milepost.rewards.topreward.compute_rabc_weights`: `milepost label` with the options of LeRobot's program."""

import sys

from milepost.cli import compute_rabc_weights

if __name__ == "__main__":
    sys.exit(compute_rabc_weights("topreward"))
