"""The options of `--ray`, and an address where nobody listens: told before a cluster is started or joined."""

import math
import signal
import socket
import subprocess
import sys

import pytest

from milepost.scale import Cluster, RayOptions, with_address
from milepost.scale.cluster import ClusterError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RayOptions(actors="2-4"), "--actors means nothing without --ray"),
        (RayOptions("local", actors="4-2"), "--actors takes at least 1, and the smaller number first; got 4-2"),
        (RayOptions("local", actors="many"), "--actors takes a number or a range"),
        (RayOptions("local", gpus_per_actor=1.5), "--gpus-per-actor takes a part of one card"),
        (RayOptions("local", cpus_per_actor=0.0), "--cpus-per-actor must be a number above 0"),
        (RayOptions("local", episode_tries=0), "--episode-tries must be a number above 0"),
        (RayOptions("ray://head:10001"), "ray job submit"),
        (RayOptions("nonsense"), "takes local, auto or HOST:PORT"),
        (RayOptions("http://127.0.0.1:8265"), "takes local, auto or HOST:PORT"),
        (RayOptions("head:99999"), "takes local, auto or HOST:PORT"),
        (RayOptions("auto", actors="0"), "got 0"),
        (RayOptions("auto", gpus_per_actor=math.inf), "--gpus-per-actor"),
        (RayOptions("auto", gpus_per_actor=math.nan), "--gpus-per-actor"),
        (RayOptions("auto", cpus_per_actor=math.inf), "--cpus-per-actor"),
        (RayOptions("auto", episode_timeout_s=math.nan), "--episode-timeout-s"),
        (RayOptions("local", episode_timeout_s=-1.0), "--episode-timeout-s must be a number above 0"),
    ],
)
def test_options_that_cannot_be_meant(options: RayOptions, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Cluster.from_options(options)


def test_options() -> None:
    assert Cluster.from_options(RayOptions()) is None
    assert Cluster.from_options(RayOptions("auto", actors="3", gpus_per_actor=0.25)) == Cluster("auto", (3, 3), gpus=0.25)
    assert Cluster.from_options(RayOptions("local", actors="2-")) == Cluster("local", (2, None))
    assert with_address(["--ray"]) == ["--ray", "local"]
    assert with_address(["--ray", "head:6379", "towels"]) == ["--ray", "head:6379", "towels"]


def test_nobody_listens_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterError, match=f"there is no Ray cluster at 127.0.0.1:{port}"), Cluster(f"127.0.0.1:{port}").joined():
        pass


JOB = """
import os, signal, sys, threading
from milepost.scale import Cluster
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
with Cluster(cpus=0.5).joined() as ray:
    @ray.remote(num_cpus=0.5, max_retries=2)
    def die():
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        ray.get(die.remote())
    except ray.exceptions.WorkerCrashedError:
        print("answer")
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_job_keeps_its_output_and_its_sigterm() -> None:
    """A process that dies thrice: Ray's words of it are no part of the answer. SIGTERM ends the command by its own handler."""
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "answer\n"), done.stderr
    assert max(map(len, done.stderr.splitlines())) < 1000
