"""Does LeRobot itself load a SARM saved for it, and say the same? Two runs, ours first, then with LeRobot 0.6.1's interpreter.

    python benchmarks/lerobot_sarm.py make FOLDER
    HF_HUB_OFFLINE=1 lerobot-python benchmarks/lerobot_sarm.py check FOLDER

`make` saves a random model of every annotation mode with format="lerobot", random windows, and what we say of them. `check` lets
LeRobot load each folder, compares config, parameter names and every number, saves it again with LeRobot, and exits 1 if anything
differs by more than 1e-5.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

MODES = {"single_stage": 1, "dense_only": 1, "dual": 3}
"""Annotation mode -> sparse stages; five dense ones where there are any."""
SHARES = {1: (1.0,), 3: (0.2, 0.5, 0.3), 5: (0.1, 0.3, 0.2, 0.25, 0.15)}


def make(folder: Path) -> int:
    from milepost.models.sarm.config import CLIP, SARMConfig
    from milepost.models.sarm.model import SARMModel

    for mode, sparse in MODES.items():
        torch.manual_seed(sparse)
        stages = {"dense": 5} if mode == "dense_only" else {"sparse": sparse, "dense": 5} if mode == "dual" else {}
        fields = {f"{head}_subtask_names": tuple(f"{head} {k}" for k in range(count)) for head, count in stages.items()}
        fields |= {f"{head}_temporal_proportions": SHARES[count] for head, count in stages.items()}
        config = SARMConfig(
            annotation_mode=mode, hidden_dim=96, num_layers=3, num_heads=4, window="centred", attention="lerobot", decode="argmax",
            frame_gap=15, encoder=CLIP, image_dim=512, text_dim=512, state_mean=(0.0,) * 7, state_std=(1.0,) * 7, **fields,
        )  # fmt: skip
        model = SARMModel(config).eval()
        with torch.no_grad():  # a fresh model hardly looks at its input: shake it until its answers are spread out
            for name, weight in model.named_parameters():
                weight.add_(0.1 * torch.randn_like(weight)).mul_(8 if ".heads." in name else 1)
        model.save_pretrained(folder / mode, format="lerobot")
        inputs = {"video": torch.randn(16, 13, 512), "text": torch.randn(16, 512), "state": torch.randn(16, 13, 32)}
        lengths = torch.arange(16) % 5 + 9
        valid = torch.arange(13) < lengths[:, None]
        with torch.no_grad():
            answers = model.read(inputs["video"][:, :, None], inputs["text"], inputs["state"], valid)
        arrays = {name: tensor.numpy() for name, tensor in {**inputs, "lengths": lengths, **answers}.items()}
        np.savez(folder / mode / "answers.npz", **arrays)
    print(f"{len(MODES)} models in {folder}")
    return 0


def check(folder: Path) -> int:
    from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel
    from safetensors.torch import load_file

    wrong = 0
    for mode in MODES:
        model = SARMRewardModel.from_pretrained(folder / mode)
        answers = dict(np.load(folder / mode / "answers.npz"))
        again = folder / f"{mode}_again"
        model.save_pretrained(again)
        names = {where: set(load_file(where / "model.safetensors")) for where in (folder / mode, again)}
        kept, differ = names[folder / mode] == names[again], fields_that_differ(folder / mode, again)
        print(f"{mode}: parameters {'all there' if kept else 'DIFFER'}, config {'the same' if not differ else f'DIFFERS in {differ}'}")
        wrong += (not kept) + len(differ)
        for head in ("sparse",) if mode == "single_stage" else ("sparse", "dense"):
            progress, stage = model.calculate_rewards(
                answers["text"], answers["video"], answers["state"], lengths=answers["lengths"],
                return_all_frames=True, return_stages=True, head_mode=head,
            )  # fmt: skip
            for name, theirs in (("progress", progress), ("stage", stage)):
                ours = answers[f"{head}_{name}"]
                off = float(np.abs(np.asarray(theirs) - ours).max())
                print(f"  {head} {name} {tuple(ours.shape)}: largest difference {off:.1e}, spread {ours.std():.2f}")
                wrong += not off < 1e-5
    return 1 if wrong else 0


def fields_that_differ(ours: Path, theirs: Path) -> list[str]:
    """Config fields that LeRobot, having read ours, writes in another way; `device` is the machine's."""
    one, two = (json.loads((folder / "config.json").read_text()) for folder in (ours, theirs))
    return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name) and name != "device")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "check"):
        sys.exit(__doc__)
    sys.exit({"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2])))
