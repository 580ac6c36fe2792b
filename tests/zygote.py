"""Runs verbs in processes of their own without importing everything each time: one process imports, and forks a child for each command.

`Zygote().run(...)` gives a `Child` that can be killed at any moment, or that kills itself at its n-th rename, open or fsync.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

VERBS = ("annotate", "copy", "evaluate", "info", "label", "plot", "render", "simulate", "train", "view", "weigh")
HEAVY = ("torch", "milepost.models", "milepost.models.sarm.train", "milepost.viewer.server", "milepost.viewer.export")


@dataclass
class Child:
    """A command that runs."""

    pid: int
    log: Path
    _zygote: Zygote
    megabytes: int = 0
    """What it took at most, once it has ended."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Returns its exit code, negative for the signal that ended it; AssertionError with what it printed if it does not end in time."""
        return self._zygote.wait(self, timeout_s)

    @property
    def words(self) -> str:
        return self.log.read_text(errors="replace")


class Zygote:
    """The process that forks. Nothing of it has used a thread of torch's, so its children can."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MILEPOST_CACHE": str(folder / "cache")}
        self.folder, self._count, self._lock = folder, 0, threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer() == "ready"

    def _answer(self) -> object:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _ask(self, **what: object) -> object:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def run(self, *arguments: object, die_at: tuple[str, int] | None = None) -> Child:
        """Starts `milepost ARGUMENTS`. die_at: (event, n): it is killed at its n-th "os.rename", "open" (for writing) or "fsync"."""
        self._count += 1
        log = self.folder / f"{self._count}.log"
        pid = self._ask(run=[str(each) for each in arguments], log=str(log), die_at=die_at)
        assert isinstance(pid, int)
        return Child(pid, log, self)

    def wait(self, child: Child, timeout_s: float) -> int:
        until = time.monotonic() + timeout_s
        while (end := self._ask(poll=child.pid)) is None:
            if time.monotonic() > until:
                child.kill()
                raise AssertionError(f"hangs: {child.words[-2000:]}")
            time.sleep(0.005)
        assert isinstance(end, list)
        code, child.megabytes = end
        return code

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@contextmanager
def zygote(folder: Path) -> Iterator[Zygote]:
    process = Zygote(folder)
    try:
        yield process
    finally:
        process.close()


def _serve() -> None:
    import importlib

    for name in (*HEAVY, *(f"milepost.cli.{verb}" for verb in VERBS)):
        importlib.import_module(name)
    print(json.dumps("ready"), flush=True)
    codes: dict[int, list[int]] = {}
    for line in sys.stdin:
        what = json.loads(line)
        if "run" in what:
            pid = os.fork()
            if pid == 0:
                _child(what["run"], what["log"], what["die_at"])
            print(pid, flush=True)
            continue
        pid = what["poll"]
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            codes[pid] = [os.waitstatus_to_exitcode(status), usage.ru_maxrss // 1024]
        print(json.dumps(codes.get(pid)), flush=True)


def _child(arguments: list[str], log: str, die_at: list | None) -> None:
    from milepost.cli.entry import main

    out = os.open(log, os.O_CREAT | os.O_WRONLY, 0o644)
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDONLY) if number == 0 else out, number)
    if die_at is not None:
        _arm(*die_at)
    sys.argv = ["milepost", *arguments]
    code = 70
    try:
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001, whatever it is belongs into the log
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _arm(event: str, count: int) -> None:
    """This process dies at the count-th such event."""
    left = count

    def happened() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if event == "fsync":
        real = os.fsync

        def fsync(handle: int) -> None:
            happened()
            real(handle)

        os.fsync = fsync
        return

    def heard(name: str, arguments: tuple) -> None:
        if name == event and (name != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
            happened()

    sys.addaudithook(heard)


if __name__ == "__main__":
    _serve()
