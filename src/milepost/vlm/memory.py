"""How much is computed at once: as many jobs as fit into memory and into a number of tokens, and half as many after memory ran out.

The memory of a job is an estimate. An out-of-memory error corrects it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import torch

from milepost.core import DataError

PLENTY = 2**30
"""Bytes that a pass may take on a CPU."""


def free_memory(device: str) -> float:
    """Returns the bytes that are free on a device; infinity where the system does not say."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if device == "cpu" and meminfo.is_file() else None
    return float(match[1]) * 1024 if match else math.inf


class Budget:
    """Divides jobs into passes. limits: the most tokens in one pass, by kind of job; a limit is halved for good when a pass runs out of
    memory.
    """

    def __init__(self, max_memory: int | None, *, device: torch.device, limits: dict[str, int]) -> None:
        if max_memory is not None and max_memory < 1:
            raise DataError(f"max_memory should be a number of bytes above zero, it is {max_memory}")
        self.limits = limits
        self._max_memory, self._device = max_memory, device

    def free(self) -> int:
        """Returns the bytes that one pass may take: `max_memory` if given, else half of a GPU's free memory, else 1 GiB."""
        if self._max_memory is not None:
            return self._max_memory
        if self._device.type != "cuda":
            return PLENTY
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        # Half: the cost of a job is an estimate, and a pass that runs out of memory is lost.
        return (torch.cuda.mem_get_info(self._device)[0] + cached) // 2

    def steps(self, kind: str, total: int, *, cost: Callable[[int, int], tuple[int, int]], run: Callable[[int, int], None]) -> None:
        """Calls `run(start, stop)` over jobs 0..total, in order. cost: (tokens, bytes) of jobs [start, stop). A single job is never
        divided.

        DataError if one job alone runs out of memory.
        """
        start = 0
        while start < total:
            stop = self._stop(kind, start, total, cost=cost)
            try:
                run(start, stop)
            except torch.OutOfMemoryError as error:
                if stop - start == 1:
                    raise DataError(
                        "out of memory with one piece of the clip at a time; use a smaller resolution or fewer frames"
                    ) from error
                self.limits[kind] = max(1, cost(start, stop)[0] // 2)
            else:
                start = stop

    def _stop(self, kind: str, start: int, total: int, *, cost: Callable[[int, int], tuple[int, int]]) -> int:
        stop, room = start + 1, self.free()
        while stop < total:
            tokens, size = cost(start, stop + 1)
            if tokens > self.limits[kind] or size > room:
                break
            stop += 1
        return stop
