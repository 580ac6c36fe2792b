"""Our weights beside LeRobot 0.6.1's own weighter: the same numbers on the same batches, and how long each takes to build and to look up.

    PYTHONPATH=src lerobot-python benchmarks/lerobot_weights.py [--golden]

Run with an interpreter that has both LeRobot and milepost's light dependencies (numpy, pyarrow, jaxtyping). `--golden` renews
`tests/data/rabc/batches.json`, what LeRobot's weighter says of some batches of the progress file there.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from lerobot.rewards.sarm.rabc import RABCWeights
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

from milepost.weights.config import RabcConfig
from milepost.weights.loader import SampleWeights

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "rabc"
CPU = torch.device("cpu")


def write_progress(path: Path, rows: int, length: int = 300, *, linear: bool = False, seed: int = 0) -> None:
    """A progress file: noisy curves with some unknown, or straight lines whose deltas equal a kappa."""
    rng = np.random.default_rng(seed)
    frame = np.arange(rows) % length
    value = frame / (length - 1) if linear else np.clip(frame / length + rng.normal(0, 0.1, rows), 0, 1)
    value = value.astype(np.float32)
    if not linear:
        value[rng.random(rows) < 0.02] = np.nan
    columns = {"index": np.arange(rows), "episode_index": np.arange(rows) // length, "frame_index": frame, "progress_sparse": value}
    pq.write_table(pa.table(columns), path)


def both(path: Path, **options: float) -> tuple[RABCWeights, SampleWeights]:
    theirs = RABCWeights(path, device=CPU, **options)
    config = {name: value for name, value in options.items() if name != "head_mode"}
    return theirs, SampleWeights.from_progress(path, config=RabcConfig(**config), head_mode=options.get("head_mode", "sparse"))


def difference(theirs: RABCWeights, ours: SampleWeights, index: torch.Tensor, size: int = 32) -> float:
    """The largest difference of a weight, relative to its batch's largest; RuntimeError if a number that is logged differs."""
    largest = 0.0
    for batch in index.split(size):
        (a, said_a), (b, said_b) = (each.compute_batch_weights({"index": batch}) for each in (theirs, ours))
        largest = max(largest, float((a - b).abs().max() / a.abs().max().clamp(min=1)))
        if any(abs(said_a[name] - said_b[name]) > 1e-6 for name in said_a):
            raise RuntimeError(f"{said_a} is not {said_b}")
    logged = (theirs.get_stats(), ours.get_stats())
    if any(logged[0][k] != logged[1][k] and abs(logged[0][k] - logged[1][k]) > 1e-6 for k in logged[0]):
        raise RuntimeError(f"{logged[0]} is not {logged[1]}")
    return largest


class Toy(torch.nn.Module):
    """A policy as far as LeRobot's training step looks: a loss a sample, or their mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, batch: dict, reduction: str = "mean") -> tuple[torch.Tensor, dict]:
        loss = (self.layer(batch["observation.state"]) - batch["action"]).abs().mean(dim=1)
        return (loss if reduction == "none" else loss.mean()), {}


def trained(weighter: object, rows: int, steps: int = 20) -> torch.Tensor:
    """Parameters after some of LeRobot's own training steps with this weighter."""
    accelerator, policy = Accelerator(cpu=True), Toy()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    meters = {name: AverageMeter(name) for name in ("loss", "grad_norm", "lr", "update_s", "dataloading_s")}
    tracker = MetricsTracker(8, rows, 10, meters, initial_step=0)
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = {
            "index": torch.randint(0, rows, (8,), generator=rng),
            "observation.state": torch.randn(8, 4, generator=rng),
            "action": torch.randn(8, 2, generator=rng),
        }
        update_policy(tracker, policy, batch, optimizer, 1.0, accelerator=accelerator, sample_weighter=weighter)
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def best(work: object, times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        taken.append(time.perf_counter() - start)
    return min(taken)


def golden() -> None:
    """What LeRobot's weighter says of seeded batches, rows that are not in the file among them."""
    rng, said = np.random.default_rng(0), []
    for options in (SimpleNamespace(chunk_size=10, kappa=0.01), SimpleNamespace(chunk_size=50, kappa=0.1, fallback_weight=0.25)):
        theirs = RABCWeights(DATA / "progress.parquet", device=CPU, **vars(options))
        last = int(pq.read_table(DATA / "progress.parquet")["index"].to_numpy().max())
        for size in (1, 8, 64):
            index = rng.integers(0, last + 20, size).tolist()
            weight, stats = theirs.compute_batch_weights({"index": torch.tensor(index)})
            said.append({"options": vars(options), "index": index, "weight": weight.tolist(), "stats": stats, "all": theirs.get_stats()})
    (DATA / "batches.json").write_text(json.dumps(said))


def main() -> None:
    logging.disable(logging.INFO)
    if "--golden" in sys.argv:
        golden()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "progress.parquet"
        for name, options in {
            "noisy, some unknown": {"chunk_size": 50, "kappa": 0.1},
            "kappa 0.01": {"chunk_size": 10, "kappa": 0.01, "fallback_weight": 0.5},
        }.items():
            write_progress(path, 20_000)
            print(f"{name}: largest difference {difference(*both(path, **options), torch.randint(0, 20_100, (4096,))):.1e}")
        write_progress(path, 20_000, length=501, linear=True)
        pair = both(path, chunk_size=50, kappa=0.1)
        print(f"every delta on paper equal to kappa: largest difference {difference(*pair, torch.arange(20_000)):.1e}")
        write_progress(path, 2_000)
        pair = both(path, chunk_size=10, kappa=0.05)
        moved = [trained(weighter, 2_000) for weighter in pair]
        print(f"parameters after 20 steps of LeRobot's loop: largest difference {float((moved[0] - moved[1]).abs().max()):.1e}")
        write_progress(path, 100_000)
        theirs_s = best(lambda: RABCWeights(path, device=CPU))
        ours_s = best(lambda: SampleWeights.from_progress(path, config=RabcConfig()))
        print(f"built from 100,000 rows: LeRobot {theirs_s:.2f} s, milepost {ours_s:.4f} s, ratio {theirs_s / ours_s:.0f}")
        theirs, ours = both(path)
        for size in (8, 64, 256):
            batch = {"index": torch.randint(0, 100_000, (size,))}
            a, b = (best(lambda w=w, b=batch: [w.compute_batch_weights(b) for _ in range(200)]) / 200 for w in (theirs, ours))
            c = best(lambda b=batch: [ours[b["index"]] for _ in range(200)]) / 200
            print(f"batch of {size}: LeRobot {a * 1e6:.0f} us, milepost {b * 1e6:.0f} us, weights[index] alone {c * 1e6:.0f} us")


if __name__ == "__main__":
    main()
