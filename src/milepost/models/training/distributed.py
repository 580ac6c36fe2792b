"""Training in several processes, in the words of torch.distributed: rank, world size, all-reduce, broadcast. A single process does none of
it.

A launcher (`accelerate launch`, `torchrun`) starts the same command several times and tells each process its place in the environment:
RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Nothing here reads or writes files.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from milepost.core import DataError

PATIENCE = datetime.timedelta(hours=4)
"""How long one process waits for another, which may be reading a dataset or labelling. It can be long because a process that dies is
noticed at once.
"""


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among `world_size` processes. Rank 0 is the main process, the only one that writes."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Returns whether this is the process that writes."""
        return self.rank == 0

    def shard(self, size: int) -> slice:
        """Returns which of the `size` samples of a batch, a multiple of `world_size`, are this process's."""
        each = size // self.world_size
        return slice(self.rank * each, (self.rank + 1) * each)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all processes, computed in place."""
        if self.world_size > 1:
            with _connected():
                distributed.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensors (B, ...) of all processes, one shape each, end to end in the order of their ranks."""
        if self.world_size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        with _connected():
            distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def broadcast(self, values: Iterable[float], device: torch.device) -> list[float]:
        """Returns the main process's numbers, the same on all."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64, device=device)  # exact for steps and for losses
        with _connected():
            distributed.broadcast(tensor, 0)
        return tensor.tolist()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Runs this block in the main process alone, and then in all others together."""
        if self.world_size > 1 and not self.is_main:
            with _connected():
                distributed.barrier()
        yield
        if self.world_size > 1 and self.is_main:
            with _connected():
                distributed.barrier()

    def broadcast_weights(self, module: nn.Module) -> None:
        """Copies the main process's parameters and buffers to all processes."""
        if self.world_size > 1:
            with _connected():
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], extra: Tensor) -> Tensor:
        """Replaces every gradient by its sum over the processes, in one message with the numbers `extra` (N,), whose sum it returns."""
        if self.world_size == 1:
            return extra
        gradients = [p.grad for p in parameters if p.grad is not None]
        message = torch.cat([extra.float(), *(gradient.flatten() for gradient in gradients)])
        self.all_reduce(message)
        extra, *parts = message.split([len(extra), *(gradient.numel() for gradient in gradients)])
        for gradient, shard in zip(gradients, parts, strict=True):
            gradient.copy_(shard.view_as(gradient))
        return extra


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def _connected() -> Iterator[None]:
    """Raises DataError for what torch raises when another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"another process of this run ended; its own message says why ({str(error).splitlines()[0][:200]})") from error


def current_process_group() -> ProcessGroup:
    """Returns the group that this process has joined, or one of this process alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return SINGLE_PROCESS
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size())


def launched_processes() -> int:
    """Returns how many processes a launcher started; 1 without one."""
    no_launcher = "WORLD_SIZE" not in os.environ
    if no_launcher and any(int(os.environ.get(name, "1")) > 1 for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")):
        raise DataError("started by mpirun, which does not say RANK and WORLD_SIZE; use accelerate launch or torchrun")
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_device(device: str) -> str:
    """Returns for "cuda" the GPU of this process's number on its machine, when there are several processes."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and launched_processes() > 1 else device


@contextmanager
def init_process_group(device: str) -> Iterator[ProcessGroup]:
    """Joins the processes that a launcher started, and leaves them at the end. DataError if they cannot be reached.

    When one fails or is interrupted, the others are not kept waiting: its connections close, and they fail too.
    """
    if launched_processes() == 1:
        yield SINGLE_PROCESS
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"the {launched_processes()} processes of this run could not meet: {str(error).splitlines()[0]}") from error
    try:
        yield current_process_group()
    finally:
        distributed.destroy_process_group()
