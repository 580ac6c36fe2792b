"""The options of the verbs that can run on a Ray cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOCAL, RUNNING = "local", "auto"
ADDRESS = re.compile(r"local|auto|(?P<host>[^\s/:]+):(?P<port>\d+)")
"""The forms of an address."""


def with_address(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command with an address after a `--ray` that stands alone.

    >>> with_address(["towels", "--ray", "--json"]), with_address(["towels", "--ray=auto"]), with_address(["--ray", "10.0.0.1:6379"])
    (['towels', '--ray', 'local', '--json'], ['towels', '--ray=auto'], ['--ray', '10.0.0.1:6379'])
    >>> with_address(["--ray", "lerobot/pusht"]), with_address(["--ray", "nonsense"])
    (['--ray', 'local', 'lerobot/pusht'], ['--ray', 'nonsense'])
    """
    words = list[str]()
    for place, word in enumerate(arguments):
        words.append(word)
        after = arguments[place + 1] if place + 1 < len(arguments) else "--"
        if word == "--ray" and not _is_meant(after):
            words.append(LOCAL)
    return words


def _is_meant(word: str) -> bool:
    """Returns whether a word behind `--ray` is meant for it, and not an option, a folder or a Hub id."""
    if word.startswith("-") or Path(word).expanduser().exists():
        return False
    return "://" in word or "/" not in word


@dataclass(frozen=True)
class RayOptions:
    ray: str | None = None
    """Run on a Ray cluster (pip install 'milepost[ray]'): --ray (or --ray local) starts one on this machine, --ray auto joins the one
    that runs here, and --ray HOST:PORT joins another. The dataset's folder must be seen under the same path on every node."""
    actors: str = "1-"
    """With --ray: processes that hold the model, at least and at most, such as 2-8, 2- or 4. Default: from 1 to what the cluster has
    room for."""
    cpus_per_actor: float = 1.0
    """With --ray: cores that each of them keeps."""
    gpus_per_actor: float = 0.0
    """With --ray: graphics cards that each of them keeps; 0.25 lets four share one."""
    episode_timeout_s: float = 600.0
    """With --ray: an episode that takes longer is tried again, and then left unknown."""
    episode_tries: int = 3
    """With --ray: how often an episode is begun that ends its process, or takes too long, before it is left unknown."""
