"""What LeRobot 0.6.1 itself labels, from pixels to progress: makes `tests/data/sarm_labels.npz`. Run with LeRobot's interpreter:

    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_labels.py [STRIDE]

Its own labelling loop, with both heads, on the dataset, the checkpoints and the tiny CLIP in `tests/data`. The tiny CLIP stands in for
the one LeRobot loads by name; nothing else is changed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
MODES = ("single_stage", "dual")


def main(stride: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_LEROBOT_HOME"] = home
        dataset = shutil.copytree(DATA / "dataset_v3", Path(home) / "local" / "dataset")
        shutil.copytree(DATA / "dataset_v3_annotated" / "meta", dataset / "meta", dirs_exist_ok=True)  # it refuses "dual" without
        import pyarrow.parquet as pq
        from lerobot.rewards.sarm import compute_rabc_weights, processor_sarm

        arrays = {}
        clip, processor = processor_sarm.CLIPModel.from_pretrained, processor_sarm.CLIPProcessor.from_pretrained
        for mode in MODES:
            out = Path(home) / f"{mode}.parquet"
            with (
                patch.object(processor_sarm.CLIPModel, "from_pretrained", lambda name, **rest: clip(DATA / "clip_tiny", **rest)),
                patch.object(processor_sarm.CLIPProcessor, "from_pretrained", lambda name, **rest: processor(DATA / "clip_tiny", **rest)),
            ):
                compute_rabc_weights.compute_sarm_progress(
                    "local/dataset", str(DATA / "sarm_checkpoint" / mode), output_path=str(out), head_mode="both", device="cpu",
                    num_visualizations=0, stride=stride,
                )  # fmt: skip
            table = pq.read_table(out)
            arrays |= {f"{mode}/{name}": table[name].to_numpy() for name in table.column_names if name.startswith("progress_")}
    np.savez_compressed(DATA / "sarm_labels.npz", stride=np.array(stride), **arrays)
    print({name: (array.shape, float(array.min()), float(array.max()), float(array.std())) for name, array in arrays.items()})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
