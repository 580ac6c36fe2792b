"""What the plugin needs of LeRobot: its version, and the shape of the few places it reaches into. What differs is refused in a sentence.

LeRobot has registries for reward models, and the plugin uses them. For sample weights it has none, so one function is replaced at run time,
and only if it still takes what it took in the tested version.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import InvalidVersion, Version

log = logging.getLogger(__name__)
OLDEST, TESTED = "0.6.1", "0.6.1"
"""The lowest version that has what is used here, and the newest that the plugin was run with."""


class ChangedError(ImportError):
    """LeRobot is missing, too old, or no longer what the plugin was made for."""


def require_lerobot() -> None:
    """Raises ChangedError if LeRobot is not installed, or older than the lowest version that will do."""
    try:
        there = version("lerobot")
    except PackageNotFoundError:
        raise ChangedError(
            f"lerobot_policy_milepost needs LeRobot {OLDEST} or newer, and it is not installed: pip install lerobot"
        ) from None
    try:
        old = Version(there) < Version(OLDEST)
    except InvalidVersion:
        raise ChangedError(f"lerobot_policy_milepost needs LeRobot {OLDEST} or newer, and cannot read the version {there!r}") from None
    if old:
        raise ChangedError(f"lerobot_policy_milepost needs LeRobot {OLDEST} or newer, this is {there}: pip install --upgrade lerobot")


def require_parameters(function: Callable[..., Any], names: Sequence[str], what: str) -> None:
    """Raises ChangedError if a function of LeRobot does not take exactly these parameters. what: its name, for the message."""
    parameters = list(inspect.signature(function).parameters)
    if parameters != list(names):
        raise changed(f"{what} takes ({', '.join(parameters)}) and not ({', '.join(names)})")


@contextlib.contextmanager
def options_named(config: object) -> Iterator[None]:
    """Says which option of a reward model has an impossible value. LeRobot's parser keeps the reason of such a ValueError to itself."""
    try:
        yield
    except ValueError as error:
        words = "--reward_model.%s" if hasattr(config, str(error).partition(" ")[0]) else "an option of --reward_model: %s"
        log.error(words, error)
        raise


def changed(difference: str) -> ChangedError:
    """Returns the error for a place in LeRobot that is no longer as it was."""
    return ChangedError(
        f"LeRobot {version('lerobot')} is not what lerobot_policy_milepost was made for ({TESTED}): {difference}; "
        f"install LeRobot {TESTED}, or a newer version of the plugin"
    )


def replace(owner: Any, name: str, new: Any) -> None:
    """Puts something of the plugin in the place of what LeRobot has under this name. The caller has checked what was there."""
    setattr(owner, name, new)
