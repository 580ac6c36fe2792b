"""A SARM folder as LeRobot 0.6.1 writes it <-> our config and parameter names.

The parameter names are the same. What LeRobot's config says is taken over by name, checked, or known to change no number (`IDLE`); a
field that is none of these is refused. LeRobot's network always has a dense head: without dense stages nothing reads it, so it is left
out here and written back as a copy of the sparse one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from milepost.core import DataError, Stages
from milepost.models.sarm.config import CLIP, SARMConfig

SAME = (
    "annotation_mode", "n_obs_steps", "frame_gap", "max_rewind_steps", "image_dim", "text_dim", "hidden_dim", "num_heads", "num_layers",
    "max_state_dim", "dropout", "rewind_probability", "language_perturbation_probability", "image_key", "state_key",
)  # fmt: skip
"""Fields with one name and one meaning in both."""

IDLE: Mapping[str, Any] = {
    "device": "cpu", "pretrained_path": None, "pretrained_revision": None, "push_to_hub": False, "repo_id": None, "license": None,
    "tags": None, "private": None, "use_amp": False, "use_peft": False,
    "drop_n_last_frames": 1, "batch_size": 64, "clip_batch_size": 64, "stage_loss_weight": 1.0, "pretrained_model_path": None,
}  # fmt: skip
"""Fields that change no number here, with LeRobot's default. The first two lines say where a model runs and is saved. Of the last,
batch_size, stage_loss_weight and pretrained_model_path are read by nothing in LeRobot; clip_batch_size is a matter of speed; and
drop_n_last_frames is its training sampler's.
"""

DERIVED = ("type", "input_features", "output_features")
"""LeRobot makes these anew from the other fields whenever it reads a config."""

STAGES = tuple(f"{a}_{b}" for a in ("sparse", "dense") for b in ("subtask_names", "temporal_proportions"))
MODES = ("single_stage", "dense_only", "dual")
NORMALIZATION = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "LANGUAGE": "IDENTITY", "REWARD": "IDENTITY"}
POLICY_TIME = ("use_amp", "use_peft")
"""Written by the releases in which SARM was still a policy; not written back."""


def is_lerobot(values: Mapping[str, Any]) -> bool:
    """Returns whether LeRobot wrote this config.json. Ours has no features in it."""
    return "normalization_mapping" in values or "input_features" in values


def read_config(values: Mapping[str, Any]) -> SARMConfig:
    """Returns LeRobot's config.json as ours: centred window, its attention, argmax, CLIP, and no state statistics, which it does not carry.

    DataError names a field unknown here, a normalisation other than LeRobot's default, or stages that do not fit together.
    """
    names = {*SAME, *IDLE, *DERIVED, *STAGES, "num_sparse_stages", "num_dense_stages", "normalization_mapping"}
    unknown = sorted(set(values) - names)
    if unknown:
        raise DataError(f"fields in LeRobot's SARM config that are not known here (0.6.1 is): {', '.join(unknown)}")
    normalization = {**NORMALIZATION, **values.get("normalization_mapping", {})}
    if normalization != NORMALIZATION:
        raise DataError(f"this SARM was trained with normalization_mapping {normalization}; only {NORMALIZATION} is read here")
    mode = values.get("annotation_mode", "single_stage")
    if mode not in MODES:
        raise DataError(f"LeRobot's annotation_mode must be {', '.join(MODES)}, got '{mode}'")
    fields = {name: values[name] for name in SAME if name in values}
    for head, modes in (("sparse", ("dual",)), ("dense", ("dual", "dense_only"))):
        if mode in modes:
            stages = _stages(head, values)
            fields |= {f"{head}_subtask_names": stages.names, f"{head}_temporal_proportions": stages.shares}
    return SARMConfig(**{"frame_gap": 30, "image_dim": 512, "text_dim": 512, **fields}, **OURS)


OURS: dict[str, Any] = {"encoder": CLIP, "window": "centred", "attention": "lerobot", "decode": "argmax", "state_stats_from": ""}
"""What every LeRobot checkpoint is, in our words. How it was trained is no part of it."""


def _stages(head: str, values: Mapping[str, Any]) -> Stages:
    """Returns names and proportions of one head. Where LeRobot's config has none it uses equal proportions, and so do we."""
    count = values.get(f"num_{head}_stages") or 0
    names = values.get(f"{head}_subtask_names") or [f"stage {k}" for k in range(count)]
    shares = values.get(f"{head}_temporal_proportions") or [1.0] * len(names)
    if not (len(names) == len(shares) == count) or len(set(names)) != count:
        raise DataError(f"LeRobot's config has {count} {head} stages, but names {names} and shares {shares}")
    if abs(sum(shares) - 1) <= 1e-6:
        return Stages(tuple(names), tuple(map(float, shares)))
    return Stages.from_proportions({name: float(share) for name, share in zip(names, shares, strict=True)})


def from_lerobot_weights(weights: Mapping[str, Tensor], config: SARMConfig) -> dict[str, Tensor]:
    """Returns LeRobot's parameters as ours: without the dense head where there are no dense stages."""
    return {name: weight for name, weight in weights.items() if "dense" in config.heads or ".heads.dense." not in name}


def write_config(config: SARMConfig) -> dict[str, Any]:
    """Returns our config as LeRobot's config.json. DataError says what LeRobot's SARM cannot do."""
    refuse_export(config)
    heads = config.heads
    stages: dict[str, Any] = {}
    for head in ("sparse", "dense"):
        there = heads.get(head)
        stages |= {
            f"num_{head}_stages": len(there) if there else None,
            f"{head}_subtask_names": list(there.names) if there else None,
            f"{head}_temporal_proportions": list(there.shares) if there else None,
        }
    frames = config.width + config.max_rewind_steps
    output = {}
    for head, there in heads.items():
        output[f"{head}_stage"] = {"type": "REWARD", "shape": [frames, len(there)]}
        output[f"{head}_progress"] = {"type": "REWARD", "shape": [frames, 1]}
    return {
        "type": "sarm",
        "input_features": {
            config.image_key: {"type": "VISUAL", "shape": [480, 640, 3]},
            config.state_key: {"type": "STATE", "shape": [config.max_state_dim]},
        },
        "output_features": output,
        **{name: value for name, value in IDLE.items() if name not in POLICY_TIME},
        **{name: getattr(config, name) for name in SAME},
        **stages,
        "normalization_mapping": dict(NORMALIZATION),
    }


def to_lerobot_weights(weights: Mapping[str, Tensor], config: SARMConfig) -> dict[str, Tensor]:
    """Returns our parameters as LeRobot's, with the dense head it expects."""
    out = dict(weights)
    if "dense" not in config.heads:
        out |= {name.replace(".sparse.", ".dense."): weight.clone() for name, weight in weights.items() if ".heads.sparse." in name}
    return out


def lerobot_architecture(config: SARMConfig, fps: float) -> SARMConfig:
    """Returns the config with what LeRobot's SARM can do, and nothing else. DataError says what it cannot, before anything is trained."""
    architecture = {name: value for name, value in OURS.items() if name != "state_stats_from"}
    result = dataclasses.replace(config, **architecture, frame_gap=config.gap(fps), image_dim=512, text_dim=512)
    if len(result.cameras) > 1:
        raise DataError(f"LeRobot's SARM looks at one camera; choose with --image-key: {', '.join(result.cameras)}")
    if result.annotation_mode not in MODES:
        raise DataError(f"LeRobot's SARM has no annotation_mode '{result.annotation_mode}'; it has: {', '.join(MODES)}")
    return result


def refuse_export(config: SARMConfig) -> None:
    """Raises DataError with every reason why LeRobot would not give this model's numbers."""
    conditions = [
        (config.attention == "lerobot", "its attention is causal in time (LeRobot: attention='lerobot')"),
        (config.window == "centred", "its window is causal (LeRobot: window='centred')"),
        (config.frame_gap is not None, "its window is spaced in seconds (LeRobot: frame_gap, in frames)"),
        (config.decode == "argmax", "it averages over stages (LeRobot: decode='argmax')"),
        (len(config.cameras) == 1, f"it looks at {len(config.cameras)} cameras (LeRobot: 1)"),
        (config.encoder == CLIP, f"its encoder is '{config.encoder}' (LeRobot: '{CLIP}')"),
        (config.annotation_mode != "sparse_only", "annotation_mode 'sparse_only' is ours (LeRobot: single_stage, dense_only, dual)"),
        (len(config.heads.get("dense", (0, 0))) > 1, "it has one dense stage (LeRobot: at least 2)"),
    ]
    reasons = [reason for fine, reason in conditions if not fine]
    if reasons:
        raise DataError(f"this model cannot be saved for LeRobot: {'; '.join(reasons)}")
