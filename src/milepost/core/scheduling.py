"""The scheduling of this process's threads, kept from libraries that change it.

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
    """Puts this process's threads, those begun inside too, back under the scheduling that the calling one had before."""
    if not TASKS.is_dir():  # not Linux
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for task in [int(path.name) for path in TASKS.iterdir()]:
        with suppress(ProcessLookupError):  # it has ended
            if os.sched_getscheduler(task) == os.SCHED_FIFO != policy:
                os.sched_setscheduler(task, policy, priority)
