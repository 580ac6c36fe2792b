"""Writing AV1 leaves the process as it was: as root its encoder makes every thread real-time, which starves the whole machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from milepost.core.scheduling import TASKS, ordinary
from milepost.datasets.video import encode_video

pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="not Linux")


def policies() -> set[int]:
    return {os.sched_getscheduler(int(task.name)) for task in TASKS.iterdir()}


def test_writing_av1_changes_no_threads_scheduling(tmp_path: Path) -> None:
    seen = []

    def frames():
        for _ in range(4):
            yield np.zeros((64, 64, 3), np.uint8)
            seen.append(policies())

    before = policies()
    encode_video(tmp_path / "film.mp4", frames(), 10)
    assert [*seen, policies()] == [before] * 5


CHANGES = """
import os, threading
from milepost.core.scheduling import ordinary, TASKS
done = threading.Event()
with ordinary():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    threading.Thread(target=done.wait).start()  # inherits it
print({os.sched_getscheduler(int(task.name)) for task in TASKS.iterdir()})
done.set()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask for real-time scheduling")
def test_every_thread_is_put_back() -> None:
    run = subprocess.run([sys.executable, "-c", CHANGES], capture_output=True, text=True, check=False)
    if "PermissionError" in run.stderr:
        pytest.skip("this container may not ask for real-time scheduling")
    assert run.stdout.strip() == str({os.SCHED_OTHER})


def test_scheduling_that_was_asked_for_stays() -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    with ordinary():
        pass
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
