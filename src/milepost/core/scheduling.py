"""Restores the scheduling of this process's threads after a library changes it.

SVT-AV1, run as root (as in most containers), puts the thread that opens it and some forty of its own under real-time scheduling of the
highest priority, and leaves them there: on a machine with few cores nothing else gets a turn until the process ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")


@contextmanager
def ordinary() -> Iterator[None]:
    """Restores, at the end of the block, the caller's scheduling for all threads of this process, also for those started inside."""
    if not TASKS.is_dir():  # not Linux
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for task in [int(path.name) for path in TASKS.iterdir()]:
        with suppress(ProcessLookupError):  # it has ended
            if os.sched_getscheduler(task) == os.SCHED_FIFO != policy:
                os.sched_setscheduler(task, policy, priority)
