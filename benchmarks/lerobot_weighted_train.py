"""LeRobot 0.6.1's `lerobot-train` with its own weighter and with ours, step by step. Run with LeRobot's interpreter:

    HF_HUB_OFFLINE=1 PYTHONPATH=src lerobot-python benchmarks/lerobot_weighted_train.py

The launcher is the one in docs/weights.md. pi0, pi0.5 and SmolVLA need weights from the Hub, so the policy is ACT (64 wide, no pretrained
backbone) given what those have: a loss a sample. Printed: the largest difference of a loss, and of the numbers LeRobot logs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
DATASET = ROOT / "tests" / "data" / "dataset_v3"
STEPS = 6


def train_here(options: list[str], ours: bool, record: Path) -> None:
    """`lerobot-train` in this process, every step's loss and logged weights kept."""
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.scripts import lerobot_train

    def forward(self: ACTPolicy, batch: dict, reduction: str = "mean") -> tuple:
        batch = {**batch, "observation.images": [batch[key] for key in self.config.image_features]}
        predicted = self.model(batch)[0]
        loss = ((batch["action"] - predicted).abs() * ~batch["action_is_pad"][..., None]).mean(dim=(1, 2))
        return (loss if reduction == "none" else loss.mean()), {}

    ACTPolicy.forward = forward
    step, kept = lerobot_train.update_policy, []

    def watched(tracker: object, *rest: object, sample_weighter: object, **named: object) -> tuple:
        asked, told = sample_weighter.compute_batch_weights, {}

        def remember(batch: dict) -> tuple:
            weight, stats = asked(batch)
            told.update(stats, weight=weight.tolist(), all=sample_weighter.get_stats())
            return weight, stats

        sample_weighter.compute_batch_weights = remember
        out = step(tracker, *rest, sample_weighter=sample_weighter, **named)
        sample_weighter.compute_batch_weights = asked
        kept.append({**told, "loss": tracker.loss.val})
        return out

    lerobot_train.update_policy = watched
    sys.argv = ["lerobot-train", *options]
    if ours:
        page = (ROOT / "docs" / "weights.md").read_text()
        exec(re.search(r"```python\n(\"\"\"lerobot-train.*?)```", page, re.S)[1], {"__name__": "__main__"})
    else:
        lerobot_train.main()
    record.write_text(json.dumps(kept))


def run(folder: Path, name: str) -> list[dict]:
    options = [
        "--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false", "--policy.chunk_size=10", "--policy.n_action_steps=10",
        "--policy.dim_model=64", "--policy.n_heads=4", "--policy.dim_feedforward=64", "--policy.n_encoder_layers=1",
        "--policy.use_vae=false", "--policy.pretrained_backbone_weights=null", f"--dataset.repo_id=local/d --dataset.root={DATASET}",
        "--dataset.video_backend=pyav", f"--output_dir={folder / name} --job_name={name}", f"--steps={STEPS} --batch_size=16",
        "--num_workers=0 --env_eval_freq=0 --save_checkpoint=false --log_freq=1 --wandb.enable=false --seed=7",
        f"--sample_weighting.type=rabc --sample_weighting.progress_path={folder / 'progress.parquet'} --sample_weighting.kappa=0.2",
    ]  # fmt: skip
    words = [sys.executable, __file__, name, str(folder / f"{name}.json"), *" ".join(options).split()]
    done = subprocess.run(
        words, env={**os.environ, "WEIGHTS": str(folder / "weights.parquet")}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads((folder / f"{name}.json").read_text())


def main() -> None:
    from milepost.weights.config import RabcConfig
    from milepost.weights.loader import SampleWeights
    from milepost.weights.result import weigh

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = pq.read_table(DATASET / "data", columns=["index", "episode_index", "frame_index"])
        columns = {name: rows[name].to_numpy() for name in rows.column_names}
        curve = np.clip(columns["frame_index"] / 150 + np.random.default_rng(0).normal(0, 0.1, len(rows)), 0, 1).astype(np.float32)
        pq.write_table(pa.table({**columns, "progress_sparse": curve}), folder / "progress.parquet")
        config = RabcConfig(chunk_size=10, kappa=0.2)
        weighed = weigh(columns["index"], columns["episode_index"], curve, config=config)
        SampleWeights.of(weighed).save(folder / "weights.parquet", config, {})
        theirs, ours = run(folder, "theirs"), run(folder, "ours")
    losses = [[step["loss"] for step in each] for each in (theirs, ours)]
    print(f"losses of LeRobot's own: {', '.join(f'{loss:.4f}' for loss in losses[0])}")
    print(f"largest difference of a loss: {np.abs(np.subtract(*losses)).max():.1e}")
    print(f"of a weight: {max(np.abs(np.subtract(a['weight'], b['weight'])).max() for a, b in zip(theirs, ours, strict=True)):.1e}")
    numbers = [k for k in theirs[0] if k not in ("weight", "all", "loss")] + [f"all.{k}" for k in theirs[0]["all"]]
    print(f"the same names logged: {sorted(theirs[0]['all']) == sorted(ours[0]['all'])}, {', '.join(numbers)}")
    batch = ("mean_weight", "num_zero_weight", "num_full_weight")
    print(f"of a logged number: {max(abs(a[k] - b[k]) for a, b in zip(theirs, ours, strict=True) for k in batch):.1e}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        train_here(sys.argv[3:], sys.argv[1] == "ours", Path(sys.argv[2]))
    else:
        main()
