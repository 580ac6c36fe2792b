"""Kills a command at a chosen moment of its work, so that no test waits for the moment to come by."""

import signal
import subprocess
import sys

SCRIPT = """
import os, signal, sys
from milepost.cli.entry import main
from milepost.progress import store

keep = store.ProgressStore.keep

def keep_and_die(self):
    keep(self)
    if len(self._parts()) == {parts}:
        os.kill(os.getpid(), signal.SIGKILL)

store._KEEP_S, store.ProgressStore.keep = -1.0, keep_and_die
sys.argv = ["milepost", *{words!r}]
sys.exit(main())
"""


def kill_after(parts: int, *words: str) -> None:
    """Runs a command line that labels, writes every episode at once, and is killed when so many parts are on disk."""
    script = SCRIPT.format(parts=parts, words=list(words))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=240)
    assert run.returncode == -signal.SIGKILL, run.stderr
