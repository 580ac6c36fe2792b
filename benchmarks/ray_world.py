"""What the benchmarks of `milepost label --ray` share: a model of its own package that notes each episode, a Ray cluster that can be killed
as a whole, and what is read back. It imports nothing of milepost, because a benchmark of processes must not load it twice.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODEL = '''
import os
import time
from dataclasses import dataclass

import numpy as np
import torch

from milepost.core import Curve, Progress
from milepost.models.registry import ModelKind


@dataclass(frozen=True)
class NotedConfig:
    """Nothing to set."""


def note(word, episode):
    line = f"{time.time():.6f} {word} {episode} {os.getpid()}\\n".encode()
    file = os.open(os.environ["NOTED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line)
    os.close(file)


class NotedModel:
    """A small random network on each image, which writes a line when an episode is begun and when it is done."""

    def __init__(self, config=NotedConfig()):
        self.config = config
        weights = torch.Generator().manual_seed(0)
        self.layers = [torch.randn(3072, 512, generator=weights) / 55, torch.randn(512, 1, generator=weights) / 23]

    def predict(self, episode):
        if load := os.environ.get("NOTED_LOAD"):
            return self.busy(episode, load)
        note("begin", episode.index)
        images = next(iter(episode.cameras.values()))[np.arange(episode.length)]
        pixels = torch.from_numpy(images.reshape(len(images), -1)).float() / 255
        value = torch.sigmoid(torch.relu(pixels @ self.layers[0]) @ self.layers[1])[:, 0]
        time.sleep(float(os.environ.get("NOTED_SLEEP_S", "0")))
        note("end", episode.index)
        return Progress(episode.index, Curve(value.numpy()))

    def busy(self, episode, load):
        note("begin", episode.index)
        frames = next(iter(episode.cameras.values()))
        if load == "decode":
            value = np.concatenate([chunk[:, ::16, ::16].mean((1, 2, 3)) for chunk in frames.chunks()]) / 255
        else:
            asked = frames[np.arange(0, episode.length, 10)]
            grey = torch.from_numpy(asked[:, :64, :, 0].copy()).float() / 255
            wide = torch.ones(grey.shape[-1], 4096) / 4096
            many = torch.ones(4096, 4096) / 4096
            value = np.repeat([float((each @ wide @ many).mean()) for each in grey], 10)[: episode.length]
        note("end", episode.index)
        return Progress(episode.index, Curve(value.astype(np.float32)))

    def identity(self):
        return {}


MODEL = ModelKind(
    "noted",
    load=lambda folder, device="cpu": NotedModel(),
    bare=lambda device="cpu": NotedModel(),
    config=NotedConfig,
    make=lambda config, folder: NotedModel(config),
)
'''


@dataclass(frozen=True)
class Note:
    """A line of the model's: when (seconds since 1970), "begin" or "end", the episode, and the process."""

    time: float
    word: str
    episode: int
    pid: int


def notes(log: Path) -> list[Note]:
    """Returns what the model has written so far, in the order of time."""
    rows = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
    return sorted((Note(float(row[0]), row[1], int(row[2]), int(row[3])) for row in rows), key=lambda each: each.time)


def install(folder: Path) -> None:
    """Writes the model "noted" as an installed package of a folder that PYTHONPATH has."""
    about = folder / "noted-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "noted_model.py").write_text(MODEL)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: noted\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[milepost.models]\nnoted = noted_model:MODEL\n")


def environment(folder: Path, *, sleep_s: float = 0.0) -> dict[str, str]:
    """Returns the environment of every process: the model's package is on the path, and it writes to `folder`/log."""
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths = [str(Path(each).resolve()) for each in os.pathsep.join(paths).split(os.pathsep)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "NOTED_LOG": str(folder / "log"),
        "NOTED_SLEEP_S": str(sleep_s),
        "MILEPOST_CACHE": str(folder / "cache"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # how long a command waits for a cluster that is gone; Ray's own is 60
        "RAY_AUTH_MODE": "disabled",  # else a token in the home folder decides whether the cluster can be joined
    }


class Head:
    """A Ray cluster of this machine, started as a user does, in a temporary folder of its own."""

    def __init__(self, folder: Path, variables: Mapping[str, str], cpus: int = 2) -> None:
        self.folder, self.variables, self.cpus = folder, dict(variables), cpus
        self.address, self._process = "", None

    def start(self) -> None:
        """Starts it and waits until it can be joined."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        ray = str(Path(sys.executable).parent / "ray")
        words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={self.cpus}"]
        words += [f"--temp-dir={self.folder}", "--include-dashboard=false", "--object-store-memory=200000000"]
        with (self.folder / "start.txt").open("a") as words_of_ray:
            self._process = subprocess.Popen(
                [ray, *words], env=self.variables, stdout=words_of_ray, stderr=subprocess.STDOUT, start_new_session=True
            )
        until = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < until:
            if "Ray runtime started" in (self.folder / "start.txt").read_text():
                return
            time.sleep(0.2)
        raise RuntimeError(f"ray start failed: {(self.folder / 'start.txt').read_text()[-500:]}")

    def kill(self) -> int:
        """Kills every process of it at once, as when a machine loses power. Returns how many there were."""
        if self._process is None:
            return 0
        processes = [*descendants(self._process.pid), self._process.pid]
        for pid in processes:
            end(pid)
        self._process.wait()
        (self.folder / "start.txt").write_text("")
        return len(processes)


def end(pid: int) -> bool:
    """Kills a process that this benchmark, or its cluster, started. Returns whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Returns the processes that come from this one."""
    parents = dict[int, int]()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
    everyone, newest = list[int](), [pid]
    while newest:
        newest = [child for child, parent in parents.items() if parent in newest]
        everyone += newest
    return everyone
