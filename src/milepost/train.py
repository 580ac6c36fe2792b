"""One training loop: AdamW, warm-up then cosine, clipping, checkpoints, a JSONL log. Interrupted, it goes on where it stopped, exactly.

What happens at step s depends only on (seed, s) and the weights before it, so a resumed run has the same losses as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from milepost.evaluate import Summary, score_episode, summarise
from milepost.models import ElapsedModel
from milepost.models.sarm import SARMConfig, SARMModel
from milepost.models.sarm.prepare import LeftOut, choose, reduce_all, training_set, with_statistics
from milepost.stages import Stages
from milepost.store import atomic_path, require_writable, write_text
from milepost.types import DataError, Episode

Tick = Callable[[int, int], None]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The optimiser's defaults are the paper's."""

    steps: int = 5000
    batch_size: int = 32
    lr: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.1
    """Share of the steps spent warming up."""
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    checkpoint_s: float = 20.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")


PRESETS = {
    "paper": (SARMConfig(), TrainConfig()),
    "small": (
        SARMConfig(
            hidden_dim=96,
            n_obs_steps=4,
            num_layers=2,
            num_heads=4,
            rewind_probability=0.0,
            max_rewind_steps=0,
            dropout=0.0,
            feature_noise=0.3,
            unfinished="zero",
        ),
        TrainConfig(steps=800, batch_size=64, lr=1e-3, weight_decay=1e-2),
    ),
}


def split(episodes: Sequence[Episode], holdout: float, rng: np.random.Generator) -> tuple[list[Episode], list[Episode]]:
    """(training, held out). Episodes that share a start scene (fact `scene`) stay on one side; without scenes each is its own.

    Scenes are drawn per (task, kind) where those are known, so that both sides see every kind.
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout must lie in [0, 1), got {holdout}")
    strata: dict[tuple, list] = {}
    scenes: dict[tuple, list[Episode]] = {}
    for episode in episodes:
        scene = (episode.task, episode.facts["scene"]) if "scene" in episode.facts else ("episode", episode.index)
        if scene not in scenes:
            strata.setdefault((episode.task, str(episode.facts.get("kind", ""))), []).append(scene)
        scenes.setdefault(scene, []).append(episode)
    out: set[tuple] = set()
    for members in strata.values():
        count = min(len(members) - 1, round(holdout * len(members))) if len(members) > 1 else 0
        out |= {members[i] for i in rng.permutation(len(members))[:count]}
    train = [episode for scene, group in scenes.items() if scene not in out for episode in group]
    held = [episode for scene, group in scenes.items() if scene in out for episode in group]
    return sorted(train, key=lambda e: e.index), sorted(held, key=lambda e: e.index)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up to `lr`, then a cosine down to a tenth of it."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    model: SARMModel,
    sample: Callable[[int, np.random.Generator], dict[str, Tensor]],
    *,
    config: TrainConfig,
    folder: Path,
    key: str,
    on_progress: Tick,
) -> None:
    """Train `model.loss(batch, generator)` on `sample(batch_size, rng)` for `config.steps` steps, logging to `folder/log.jsonl`.

    `key` says what is being trained on what; a checkpoint with another key is not continued.
    """
    model.to(config.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    start, log = _resume(model, optimizer, folder / CHECKPOINT, key)
    saved = time.monotonic()
    with _saved_on_interrupt(lambda: _checkpoint(model, optimizer, log, folder / CHECKPOINT, key)):
        for step in range(start, config.steps):
            batch = {k: v.to(config.device) for k, v in sample(config.batch_size, np.random.default_rng([config.seed, step])).items()}
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            torch.manual_seed(config.seed * 1_000_003 + step)  # dropout draws from the global generator
            loss, parts = model.loss(batch, torch.Generator().manual_seed(config.seed * 1_000_003 + step))
            if not torch.isfinite(loss):
                raise DataError(f"the loss became {loss.item()} at step {step}; lower --lr, or look for broken data with milepost info")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            log.append({"step": step, "lr": learning_rate(step, config), "grad_norm": norm.item(), **parts})
            on_progress(step + 1, config.steps)
            if time.monotonic() - saved > config.checkpoint_s:
                _checkpoint(model, optimizer, log, folder / CHECKPOINT, key)
                saved = time.monotonic()
    write_text(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log))


@contextmanager
def _saved_on_interrupt(save: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        save()
        raise


def _checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, log: list[dict], path: Path, key: str) -> None:
    with atomic_path(path) as temporary:
        torch.save({"key": key, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": log}, temporary)


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path, key: str) -> tuple[int, list[dict]]:
    if not path.is_file():
        return 0, []
    saved = torch.load(path, weights_only=True, map_location="cpu")
    if saved["key"] != key:
        return 0, []
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return len(saved["log"]), saved["log"]


def run_key(*parts: object) -> str:
    """A short hash of everything that decides a run."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model, the episodes it never saw, and those it could not use."""

    model: SARMModel
    train_episodes: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


def train_sarm(
    episodes: Sequence[Episode],
    config: SARMConfig,
    train: TrainConfig,
    *,
    folder: Path,
    stages: dict[str, Stages],
    holdout: float,
    cache: Path | None = None,
    on_stage: Callable[[str], Tick],
) -> Trained:
    """Train SARM on a share of the episodes, split by start scene, and save it to `folder`.

    `stages` are the dataset's own stage shares by head, where it has them; `on_stage(name)` gives a progress callback for each part.
    """
    require_writable(folder)
    rng = np.random.default_rng(train.seed)
    learn, held = split(episodes, holdout, rng)
    usable, left_out = choose(learn, config)
    config = with_statistics(config, usable, stages)
    torch.manual_seed(train.seed)
    model = SARMModel(config)
    reduced = reduce_all(usable, config.cameras, cache, on_stage("read and reduce frames"))
    data = training_set(model.encoder, usable, reduced, config, rng)
    key = run_key(dataclasses.asdict(config), dataclasses.asdict(train), [(e.index, e.length, e.task) for e in usable])
    fit(model, data.sample, config=train, folder=folder, key=key, on_progress=on_stage("train"))
    model.save_pretrained(folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return Trained(model.to("cpu").eval(), tuple(e.index for e in usable), tuple(e.index for e in held), tuple(left_out))


def evaluate_held_out(model: SARMModel, held: Sequence[Episode], *, on_progress: Tick, seed: int) -> dict[str, Summary]:
    """The trained model and the clock, on episodes never trained on."""
    heads, clock = model.config.heads, ElapsedModel()
    head = "dense" if model.config.annotation_mode == "dense_only" else "sparse"
    rows: list = []
    for done, episode in enumerate(held):
        said = model.predict(episode)
        finest = said.dense if head == "dense" and said.dense is not None else said
        rows.append([score_episode(curve, episode, heads[head], head) for curve in (finest, clock.predict(episode))])
        on_progress(done + 1, len(held))
    return {name: summarise([row[i] for row in rows], np.random.default_rng(seed)) for i, name in enumerate(("sarm", "elapsed"))}
