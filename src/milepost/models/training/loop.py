"""The training loop: AdamW, warm-up then cosine, clipping, mixed precision, validation, checkpoints, a log. It knows no model.

Step s depends only on (seed, s) and the weights before it, so a resumed run has the losses of an uninterrupted one. Several processes draw
the same batch, each learns from its own part, and gradients are summed: together they give the losses of one process with the whole batch.
Only the main process writes. Numbers are read from the device every few steps, so that a GPU never waits for the log.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from milepost.core import DataError, Tick
from milepost.models.training.checkpoints import (
    read_checkpoint,
    read_mark,
    readable_checkpoint,
    save_checkpoint,
    write_mark,
)
from milepost.models.training.config import TrainConfig
from milepost.models.training.distributed import ProcessGroup, current_process_group
from milepost.models.training.marks import CHECKPOINT, finish_run
from milepost.models.training.tracking import Line, Log

LAST = "last"
READ_EVERY = {"cpu": 1}
"""Steps between two reads of the numbers, by kind of device; each read makes a GPU wait."""
READ_EVERY_ELSEWHERE = 10
HURRY_S = 2.0
"""A launcher passes on the Ctrl-C that its processes have had already; one that comes later than this is the user's second."""
EVALUATIONS = 20
"""Evaluations in a run, unless `eval_every` says otherwise."""

Batch = dict[str, Tensor]
Sample = Callable[[int, np.random.Generator], Batch]


class Learner(Protocol):
    """A model that can be trained here: a torch module that computes its own loss, a sum of means over the labels of all processes."""

    def loss(self, batch: Batch, generator: torch.Generator, process_group: ProcessGroup) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns this process's part of the loss, and of its terms by name, one of them "loss"."""
        ...

    def save_pretrained(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class FitResult:
    """How a run went. `kept`: steps before the weights in the folder; `scores`: their validation scores, empty without a validation set."""

    config: TrainConfig
    steps: int
    kept: int
    scores: Mapping[str, float]
    precision: str
    processes: int


def learning_rate(step: int, config: TrainConfig) -> float:
    """Returns the learning rate of a step: linear warm-up to `lr`, then a cosine down to a tenth of it."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    fraction = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * fraction)))


def precision(config: TrainConfig) -> torch.dtype:
    """Returns the dtype that the networks compute in. Weights, losses and softmax stay float32."""
    if config.mixed_precision == "auto":
        has_bf16 = config.device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float32
    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.mixed_precision]


def run_key(*parts: object) -> str:
    """Returns a short hash of everything that decides a run."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def fit(
    model: Any,
    sample: Sample,
    *,
    config: TrainConfig,
    folder: Path,
    key: str,
    on_progress: Tick,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> FitResult:
    """Trains a `Learner` on `sample(batch_size, rng)` for `config.steps` steps, and logs to `folder/log.jsonl`.

    `evaluate()` gives "validation_loss" and whatever else is worth a line; the model with the lowest is then saved in `folder` and the last
    one in `folder/last`. Without it the last one is saved in `folder`. `model` ends as the last one.
    `key` says what is being trained on what; an unfinished run with another key is refused, or not continued with `overwrite`. With
    `config.more_follows`, a run that has done all its steps is not repeated until `finish_run`: what came after may have been interrupted.
    DataError if a number is not finite: it says at which step, and what was kept.
    """
    if (earlier := _earlier_result(folder, config, key)) is not None:
        on_progress(config.steps, config.steps)
        return earlier
    trainer = Trainer(model, config, folder, key, evaluate)
    trainer.begin()
    read_every = READ_EVERY.get(trainer.device.type, READ_EVERY_ELSEWHERE)
    with trainer.open_log() as log, closing(_batches(sample, trainer, config)) as batches, _stop_requests() as stop_requested:
        try:
            while trainer.step < config.steps and not trainer.is_out_of_patience:
                evaluated = trainer.evaluation_due
                collect = evaluated or (trainer.step + 1) % read_every == 0
                stop = trainer.learn(next(batches), collect=collect, stop_requested=stop_requested.is_set())
                if evaluated:
                    trainer.validate()
                if collect:
                    trainer.write_lines(log)
                on_progress(config.steps if trainer.is_out_of_patience else trainer.step, config.steps)
                if stop:
                    trainer.save()
                    # Nobody leaves before it is written: a launcher ends the others as soon as one has left.
                    trainer.process_group.broadcast([0.0], trainer.device)
                    raise KeyboardInterrupt
                if collect and (evaluated or time.monotonic() - trainer.saved > config.checkpoint_s):
                    trainer.save()
        except KeyboardInterrupt:
            if trainer.whole:
                trainer.collect_lines()
                trainer.write_lines(log)
                trainer.save()
            raise
    return trainer.end()


class Trainer:
    """One run: the weights, the optimiser's state, and what else a checkpoint has."""

    def __init__(self, model: Any, config: TrainConfig, folder: Path, key: str, evaluate: Callable[[], dict[str, float]] | None) -> None:
        self.model, self.config, self.folder, self.key, self.evaluate = model, config, folder, key, evaluate
        self.process_group, self.device, self.dtype = current_process_group(), torch.device(config.device), precision(config)
        model.to(self.device).train()
        self.parameters: list[nn.Parameter] = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.step, self.best, self.best_step, self.stale = 0, math.inf, 0, 0
        self.scores: dict[str, float] = {}
        self.saved, self.saved_step = time.monotonic(), -1
        self.whole = True
        """False within a step, when some weights are new and some are not."""
        self.unread: list[tuple[int, Tensor]] = []
        self.lines: list[Line] = []
        self.names: list[str] = []

    @property
    def evaluation_due(self) -> bool:
        every = self.config.eval_every or max(1, self.config.steps // EVALUATIONS)
        return self.evaluate is not None and ((self.step + 1) % every == 0 or self.step + 1 == self.config.steps)

    @property
    def is_out_of_patience(self) -> bool:
        return self.config.patience is not None and self.stale >= self.config.patience

    def begin(self) -> None:
        """Continues from the checkpoint, if there is one of this run; all processes from the same one."""
        resumed = (self.folder / CHECKPOINT).exists() and self.restore()
        if self.process_group.is_main and not resumed:
            write_mark(self.folder, self.key)
        (first,) = self.process_group.broadcast([float(self.step)], self.device)
        if first != self.step:
            raise DataError(
                f"process {self.process_group.rank} does not see the checkpoint in {self.folder}: all must share the output folder"
            )
        self.process_group.broadcast_weights(self.model)
        if not resumed and self.process_group.is_main:
            remove_last(self.folder)

    def restore(self) -> bool:
        """Loads the checkpoint. Returns False if it is of another run that may be overwritten; DataError if it may not."""
        saved = read_checkpoint(self.folder, self.key, overwrite=self.config.overwrite)
        if saved is None:
            return False
        with readable_checkpoint(self.folder / CHECKPOINT):
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scaler.load_state_dict(saved["scaler"])
            self.step, self.best, self.best_step = saved["step"], saved["best"], saved["best_step"]
            self.stale, self.scores = saved["stale"], saved["scores"]
        return True

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        self.saved = time.monotonic()
        if not self.process_group.is_main or self.saved_step == self.step:
            return
        state: dict[str, Any] = {"key": self.key, "step": self.step, "model": self.model.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        state |= {"best": self.best, "best_step": self.best_step, "stale": self.stale, "scores": self.scores}
        save_checkpoint(self.folder / CHECKPOINT, state)
        self.saved_step = self.step

    def open_log(self) -> Any:
        """Returns the log, cut back to this step; only the main process has one."""
        if not self.process_group.is_main:
            return nullcontext()
        settings = self.config.deciding() | {"processes": self.process_group.world_size}
        return Log(self.folder, self.config.tracking, start=self.step, key=self.key, settings=settings)

    def learn(self, batch: Batch, *, collect: bool, stop_requested: bool) -> bool:
        """Takes one step. `collect`: read the numbers of this step and those before. Returns, if so, whether any process was asked to stop.

        The numbers are read before the weights change, so a loss that is not finite never reaches them where every step is read.
        """
        config, rate = self.config, learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Primes: runs with neighbouring seeds, and the processes of one run, share no seed.
        seed = config.seed * 1_000_003 + self.step
        torch.manual_seed(seed + self.process_group.rank * 1_000_000_007)  # dropout draws from the global generator
        self.optimizer.zero_grad(set_to_none=True)
        generator, numbers = torch.Generator().manual_seed(seed), torch.zeros(())
        for part in _parts(batch, config.accumulate):
            with self.autocast():
                loss, terms = self.model.loss(part, generator, self.process_group)
            self.scaler.scale(loss / config.accumulate).backward()
            self.names = list(terms)
            numbers = numbers.to(loss) + torch.stack([*terms.values()]).detach() / config.accumulate
        numbers = torch.cat([numbers, torch.full_like(numbers[:1], float(stop_requested))])
        numbers = self.process_group.sum_gradients(self.parameters, numbers)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.unread.append((self.step, torch.cat([norm[None], numbers])))
        stop = collect and self.collect_lines()
        self.whole = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step, self.whole = self.step + 1, True
        return stop

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)

    def collect_lines(self) -> bool:
        """Reads the numbers of the steps since the last read into lines of the log. Returns whether any process was asked to stop."""
        rows = torch.stack([row for _, row in self.unread]).tolist() if self.unread else []
        steps, self.unread = [step for step, _ in self.unread], []
        stop = False
        for step, (norm, *parts, stop_requests) in zip(steps, rows, strict=True):
            line: Line = {
                "step": step,
                "lr": learning_rate(step, self.config),
                "grad_norm": norm,
                **dict(zip(self.names, parts, strict=True)),
            }
            if not math.isfinite(line["loss"]):
                raise self.broken("loss", line["loss"], step)
            if not math.isfinite(norm) and not self.scaler.is_enabled():  # in fp16 such a step is left out and the scale lowered
                raise self.broken("gradient", norm, step)
            self.lines.append(line)
            stop = stop or stop_requests > 0
        return stop

    def write_lines(self, log: Log | None) -> None:
        """Writes the lines to the log."""
        for line in self.lines if log else []:
            log.write(line)  # type: ignore[union-attr]
        self.lines = []

    def validate(self) -> None:
        """Evaluates on the main process and broadcasts the scores. The best model so far, by the lowest validation loss, is saved at
        once.
        """
        scores: dict[str, float] = {"validation_loss": math.nan}
        if self.process_group.is_main and self.evaluate:
            self.model.eval()
            with self.autocast():
                scores = self.evaluate()
            self.model.train()
        (loss,) = self.process_group.broadcast([scores["validation_loss"]], self.device)
        if not math.isfinite(loss):
            raise self.broken("validation loss", loss, self.step - 1)
        self.lines[-1] |= scores
        if loss >= self.best:
            self.stale += 1
            return
        self.best, self.best_step, self.scores, self.stale = loss, self.step, scores, 0
        if self.process_group.is_main:
            self.model.save_pretrained(self.folder)

    def broken(self, what: str, value: float, step: int) -> DataError:
        """Returns the error to raise. Before that, it saves the last good weights as a model in `last/`, if there are any."""
        words = f"the {what} became {value} at step {step}; lower --lr, or look for broken data with milepost info."
        if not self.process_group.is_main:
            return DataError(words)
        if step == self.step:
            self.save()
        if (self.folder / CHECKPOINT).is_file() and self.restore():
            self.model.save_pretrained(self.folder / LAST)
            words += f" The last good weights (after {self.step} steps) are in {self.folder / LAST}"
            words += f", the best so far (after {self.best_step}) in {self.folder}" if self.best_step else ""
        return DataError(words)

    def end(self) -> FitResult:
        """Saves the last model, and returns how the run went."""
        has_validation = self.evaluate is not None
        if self.process_group.is_main:
            self.model.save_pretrained(self.folder / LAST if has_validation else self.folder)
            if not has_validation:
                remove_last(self.folder)
        name = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]
        result = FitResult(
            self.config, self.step, self.best_step if has_validation else self.step, self.scores, name, self.process_group.world_size
        )
        if self.process_group.is_main:
            write_mark(self.folder, self.key, {k: v for k, v in vars(result).items() if k != "config"})
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            if not self.config.more_follows:
                finish_run(self.folder)
        return result


def _earlier_result(folder: Path, config: TrainConfig, key: str) -> FitResult | None:
    """Returns how a run of this key that has done all its steps went, as the main process finds it; None if there is none."""
    process_group = current_process_group()
    mark = read_mark(folder, key, overwrite=config.overwrite)
    (is_done,) = process_group.broadcast([float(mark is not None)], torch.device(config.device))
    if not is_done or mark is None:
        return None
    scores = {name: math.nan if value is None else value for name, value in mark["scores"].items()}  # JSON has null for an unknown number
    return FitResult(config, **(mark | {"scores": scores}))


def remove_last(folder: Path) -> None:
    """Removes `last/` of an earlier run, if that is what it is."""
    for name in ("config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors", "heads.safetensors"):
        (folder / LAST / name).unlink(missing_ok=True)
    if (folder / LAST).is_dir() and not any((folder / LAST).iterdir()):
        (folder / LAST).rmdir()


def _batches(sample: Sample, trainer: Trainer, config: TrainConfig) -> Generator[Batch, None, None]:
    """Yields this process's part of every batch, from the run's step on. One thread draws the next batch while this one is learnt from."""
    process_group, pin = trainer.process_group, trainer.device.type == "cuda"
    size = config.batch_size * process_group.world_size

    def draw(step: int) -> Batch:
        batch = {k: v[process_group.shard(size)] for k, v in sample(size, np.random.default_rng([config.seed, step])).items()}
        return {k: v.pin_memory() for k, v in batch.items()} if pin else batch

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(draw, trainer.step)
        for step in range(trainer.step, config.steps):
            batch = following.result()
            if step + 1 < config.steps:
                following = thread.submit(draw, step + 1)
            yield batch


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Yields so many equal parts of a batch."""
    size = len(next(iter(batch.values()))) // count
    for start in range(0, size * count, size):
        yield {name: values[start : start + size] for name, values in batch.items()} if count > 1 else batch


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Returns an event that Ctrl-C or SIGTERM sets, so that a step is finished before the run stops. Another Ctrl-C after `HURRY_S` stops
    at once.
    """
    stop_requested, first = threading.Event(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stop_requested
        return

    def note(number: int, frame: object) -> None:
        nonlocal first
        if stop_requested.is_set() and number == signal.SIGINT and time.monotonic() - first > HURRY_S:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        stop_requested.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
