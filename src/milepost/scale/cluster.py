"""A Ray cluster: how it is joined or started, how many actors there may be, and what they keep for themselves."""

from __future__ import annotations

import importlib
import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from milepost.core import DataError, load
from milepost.scale.options import ADDRESS, LOCAL, RUNNING, RayOptions
from milepost.scale.quiet import only_ray, own_sigterm, short_messages
from milepost.scale.watch import watched

_ACTORS = re.compile(r"(\d+)(-(\d*))?")
_QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_COLOR_PREFIX": "0",
}


LISTENER_S = 10.0
"""Seconds until somebody must answer at an address."""
_START = "start one with ray start --head, or give --ray alone for one on this machine"

_CLIENT = (
    ". Ray's client protocol cannot run Ray Data: begin the command on a machine of the cluster with --ray auto, such as by ray job submit"
)


class ClusterError(DataError):
    """The cluster cannot be used: it is not there, has no room for an actor, or its nodes lack what the work needs."""


@dataclass(frozen=True)
class Cluster:
    """Where work is done.

    address: "local" starts a cluster on this machine, "auto" joins the one that runs here, HOST:PORT another. actors:
    how many processes, at least and at most (None: as many as there is room for). cpus, gpus: what each keeps. timeout_s: the seconds that
    an item may take. tries: how often an item is begun that ends its process.

    ValueError if a number cannot be meant.
    """

    address: str = LOCAL
    actors: tuple[int, int | None] = (1, None)
    cpus: float = 1.0
    gpus: float = 0.0
    timeout_s: float = 600.0
    tries: int = 3

    def __post_init__(self) -> None:
        """Checks the numbers, which the command line calls by the names in the words."""
        least, most = self.actors
        if least < 1 or (most is not None and most < least):
            range_words = str(least) if most == least else f"{least}-{'' if most is None else most}"
            raise ValueError(f"--actors takes at least 1, and the smaller number first; got {range_words}")
        match, is_client = ADDRESS.fullmatch(self.address), self.address.startswith("ray://")
        if match is None or not 0 < int(match["port"] or 1) < 65536:
            raise ValueError(f"--ray takes local, auto or HOST:PORT, such as 10.0.0.1:6379; got {self.address}{_CLIENT * is_client}")
        for flag, value in (("cpus-per-actor", self.cpus), ("episode-timeout-s", self.timeout_s), ("episode-tries", self.tries)):
            if not 0 < value < math.inf:
                raise ValueError(f"--{flag} must be a number above 0, got {value}")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"--gpus-per-actor takes a part of one card, such as 0.25, or a whole number of cards; got {self.gpus}")

    @classmethod
    def from_options(cls, options: RayOptions) -> Cluster | None:
        """Returns the cluster that the options name, None if they name none. ValueError names the option that cannot be meant."""
        if options.ray is None:
            if others := [name for name in RayOptions.__dataclass_fields__ if getattr(options, name) != getattr(RayOptions(), name)]:
                raise ValueError(f"--{others[0].replace('_', '-')} means nothing without --ray")
            return None
        match = _ACTORS.fullmatch(options.actors)
        if match is None:
            raise ValueError(f"--actors takes a number or a range, such as 4, 2-8 or 2-; got {options.actors}")
        least = int(match[1])
        most = least if match[2] is None else int(match[3]) if match[3] else None
        return cls(
            options.ray, (least, most), options.cpus_per_actor, options.gpus_per_actor, options.episode_timeout_s, options.episode_tries
        )

    @contextmanager
    def joined(self, say: Callable[[str], None] = lambda line: None) -> Iterator[Any]:
        """Joins the cluster, or starts it, and yields the package ray; afterwards the cluster is left, or stopped if it was started here.

        say: is told that Ray is started, where its dashboard is, if it has one, and that there is less room than is wanted.

        ClusterError if there is none at the address, it has another version of Ray or Python, or no room for one actor.
        """
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        ray = load("ray", purpose="--ray", install="milepost[ray]")
        importlib.import_module("ray.data")
        if ray.is_initialized():  # by the caller, who also leaves it
            yield self._with_room(ray)
            return
        with short_messages():
            say(
                f"Ray is {'started on this machine' if self.address == LOCAL else 'joined'}; the first episode comes in half a minute or so"
            )
            with own_sigterm():
                page = self._join(ray)
            if page:
                say(f"Ray's dashboard, with the processes and what they print: http://{page}")
            try:
                if words := self._lack_of_room(self._with_room(ray)):
                    say(words)
                with watched(ray.get_runtime_context().gcs_address, say):
                    yield ray
            finally:
                with only_ray():
                    ray.shutdown()

    def _join(self, ray: Any) -> str:
        """Returns the address of the dashboard, "" if there is none."""
        self._require_listener()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        try:
            if self.address == LOCAL:
                here = ray.init(address="local", include_dashboard=False, **quiet)
            else:
                here = ray.init(address=self.address, **quiet)
            return here.dashboard_url or ""
        except (ConnectionError, TimeoutError, ValueError) as error:
            if _wants_token(error):
                raise ClusterError(
                    f"the Ray cluster at {self.address} asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN if this machine has "
                    "another one in ~/.ray/auth_token than the cluster"
                ) from error
            what = "on this machine" if self.address == RUNNING else f"at {self.address}"
            raise ClusterError(f"there is no Ray cluster {what}: {_first_line(error)}; {_START}") from error
        except RuntimeError as error:  # what Ray raises for versions that differ
            raise ClusterError(f"the Ray cluster at {self.address} cannot be joined: {_first_line(error)}") from error

    def _require_listener(self) -> None:
        """Raises ClusterError if nobody listens at the address: Ray itself goes on trying for minutes."""
        match = ADDRESS.fullmatch(self.address)
        if match is None or match["port"] is None:
            return
        try:
            socket.create_connection((match["host"], int(match["port"])), timeout=LISTENER_S).close()
        except OSError as error:
            raise ClusterError(f"there is no Ray cluster at {self.address}: {error.strerror or error}; {_START}") from error

    def _with_room(self, ray: Any) -> Any:
        """Returns ray. ClusterError if no node can hold one actor."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            has = "; ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ClusterError(
                f"no node of the cluster has {self.cpus:g} cores and {self.gpus:g} GPUs for an actor (--cpus-per-actor, --gpus-per-actor); "
                f"its nodes have {has}"
            )
        return ray

    def most_actors(self, ray: Any) -> int:
        """Returns how many actors there may be at most."""
        return max(self.actors[0], self._room(ray)) if self.actors[1] is None else self.actors[1]

    def _room(self, ray: Any) -> int:
        """Returns how many actors the nodes of now can hold."""
        total = ray.cluster_resources()
        rooms = [total.get("CPU", 0) / self.cpus, *([total.get("GPU", 0) / self.gpus] if self.gpus else [])]
        return int(min(rooms))

    def _lack_of_room(self, ray: Any) -> str:
        """Returns that the nodes of now hold fewer actors than are wanted, "" if they do not; a cluster that grows may still get there."""
        if (room := self._room(ray)) >= self.actors[0]:
            return ""
        return f"--actors wants {self.actors[0]} processes at least, and the cluster has room for {room} now: it begins with those"


def _wants_token(error: BaseException) -> bool:
    """Returns whether a cluster refused to be joined without its token, which Ray says in the cause of its error."""
    return any(word in f"{error} {error.__cause__}" for word in ("AuthenticationError", "InvalidAuthToken"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
