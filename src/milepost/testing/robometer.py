"""A tiny Robometer with random weights as a folder, in the two layouts that such checkpoints have. Nothing is downloaded or learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from milepost.testing.tiny import random_vlm, write_looks

TOKENS = ("<|split_token|>", "<|reward_token|>", "<|pref_token|>", "<|sim_token|>", "<|prog_token|>")
CAMERA = "observation.images.top"


def tiny_robometer(
    folder: Path | str, seed: int = 0, *, layout: Literal["upstream", "lerobot"] = "upstream", hidden: int = 32, layers: int = 2
) -> Path:
    """Writes a random Robometer of about 0.5 MB and returns its folder, which `RobometerConfig(vlm_name=...)` and `--vlm-name` take.

    layout: "upstream", as the authors publish it, or "lerobot", as LeRobot saves it, with the base model's tokenizer in the folder `base`
    inside. One seed has the same weights in both. hidden, layers: as of `tiny_vlm`. DataError if transformers is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = random_vlm(seed, hidden=hidden, layers=layers, words=TOKENS, tied=True)
    weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    heads = _heads(hidden, torch.Generator().manual_seed(seed))
    vlm_config = model.config.to_dict()
    if layout == "upstream":
        _write_json(folder / "config.json", {**vlm_config, "architectures": ["RFM"]})
        tokenizer.save_pretrained(folder)
        write_looks(folder)
    else:
        # Of two tied weights safetensors keeps the one whose name comes first.
        weights["lm_head.weight"] = weights.pop("model.language_model.embed_tokens.weight")
        weights = {f"model.{key}": value for key, value in weights.items()}
        base = folder / "base"
        small, plain = random_vlm(seed, hidden=hidden, layers=layers)
        small.config.save_pretrained(base)
        plain.save_pretrained(base)
        write_looks(base)
        _write_json(folder / "config.json", _lerobot_config(vlm_config, base))
    save_file(
        {key: value.contiguous() for key, value in (weights | heads).items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder


def _heads(width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Returns random weights of the three heads and the pooling, large enough that what they say depends on the images."""
    inner = width // 2
    weights: dict[str, torch.Tensor] = {}
    for name, outputs in (("progress", 10), ("preference", 1), ("success", 1)):
        shapes = {"0.weight": (inner, width), "0.bias": (inner,), "1.weight": (inner,), "1.bias": (inner,)}
        shapes |= {"4.weight": (outputs, inner), "4.bias": (outputs,)}
        weights |= {f"{name}_head.{part}": 0.5 * torch.randn(shape, generator=generator) for part, shape in shapes.items()}
    weights["frame_pool_attn.weight"] = torch.randn((1, width), generator=generator)
    return weights


def _lerobot_config(vlm_config: dict[str, Any], base: Path) -> dict[str, Any]:
    """Returns what LeRobot 0.6.1 writes as config.json beside the weights."""
    visual = {"type": "VISUAL", "shape": [3, 224, 224]}
    reward = {"type": "REWARD", "shape": [1]}
    return {
        "type": "robometer", "input_features": {CAMERA: visual}, "output_features": {"progress": reward, "success": reward},
        "device": "cpu", "pretrained_path": None, "image_key": CAMERA, "task_key": "task", "default_task": None, "max_frames": 8,
        "reward_output": "progress", "success_threshold": 0.5, "license": "apache-2.0", "base_model_id": str(base),
        "torch_dtype": "float32", "use_multi_image": True, "use_per_frame_progress_token": True, "average_temporal_patches": True,
        "frame_pooling": "mean", "frame_pooling_attn_temperature": 1.0, "progress_loss_type": "discrete", "progress_discrete_bins": 10,
        "vlm_config": vlm_config,
    }  # fmt: skip


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
