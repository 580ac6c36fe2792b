"""Training in several processes: who am I, sum over all of them, hear from the first. Alone, everything here does nothing.

A launcher (`accelerate launch`, `torchrun`) starts the same command several times and says who is who in the environment: RANK,
LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Nothing here reads or writes files.
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
"""How long one process waits for another, which may be reading a dataset, or labelling. One that dies is noticed at once."""


@dataclass(frozen=True)
class Peers:
    """This process among `world`; the first has rank 0 and is the only one that writes."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def part(self, size: int) -> slice:
        """Which of the `size` samples of a batch, a multiple of `world`, are this process's."""
        each = size // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            with _connected():
                distributed.all_reduce(tensor)
        return tensor

    def from_first(self, values: Iterable[float], device: torch.device) -> list[float]:
        """The first process's numbers, the same on all."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
        with _connected():
            distributed.broadcast(tensor, 0)
        return tensor.tolist()

    @contextmanager
    def first_first(self) -> Iterator[None]:
        """The first process goes through this block alone, then the others together."""
        if self.world > 1 and not self.first:
            with _connected():
                distributed.barrier()
        yield
        if self.world > 1 and self.first:
            with _connected():
                distributed.barrier()

    def same_weights(self, module: nn.Module) -> None:
        """The first process's parameters and buffers everywhere."""
        if self.world > 1:
            with _connected():
                for tensor in module.state_dict().values():
                    distributed.broadcast(tensor, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter], also: Tensor) -> Tensor:
        """Every gradient becomes its sum over the processes, in one message, with the numbers `also` (N,), whose sum is returned."""
        if self.world == 1:
            return also
        gradients = [p.grad for p in parameters if p.grad is not None]
        message = torch.cat([also.float(), *(gradient.flatten() for gradient in gradients)])
        self.sum(message)
        also, *parts = message.split([len(also), *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return also


ALONE = Peers()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise DataError(f"another process of this run ended; its own message says why ({str(error).splitlines()[0][:200]})") from error


def current() -> Peers:
    """This process among those that joined; alone if none did."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Peers(distributed.get_rank(), distributed.get_world_size())


def launched() -> int:
    """How many processes a launcher started; 1 without one."""
    alone = "WORLD_SIZE" not in os.environ
    if alone and any(int(os.environ.get(name, "1")) > 1 for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")):
        raise DataError("started by mpirun, which does not say RANK and WORLD_SIZE; use accelerate launch or torchrun")
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_device(device: str) -> str:
    """ "cuda" is the GPU of this process's number on its machine, when there are several processes."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and launched() > 1 else device


@contextmanager
def joined(device: str) -> Iterator[Peers]:
    """Meet the processes a launcher started, leave them at the end. DataError if they cannot be met.

    When one fails or is interrupted, the others are not kept waiting: its connections close, and they fail too.
    """
    if launched() == 1:
        yield ALONE
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"the {launched()} processes of this run could not meet: {str(error).splitlines()[0]}") from error
    try:
        yield current()
    finally:
        distributed.destroy_process_group()
