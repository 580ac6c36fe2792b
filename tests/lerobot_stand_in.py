"""A stand-in for the parts of LeRobot that the plugin touches, so that the plugin is tested without LeRobot. It has their names and shapes.

`plugins/lerobot/checks` runs the plugin in LeRobot itself.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from torch import nn

PLUGIN = Path(__file__).parents[1] / "plugins" / "lerobot"


@dataclass
class RewardModelConfig:
    known: ClassVar[dict[str, type]] = {}
    input_features: dict = field(default_factory=dict)
    output_features: dict = field(default_factory=dict)
    device: str | None = "cpu"
    pretrained_path: str | None = None
    push_to_hub: bool = False
    repo_id: str | None = None

    def __post_init__(self) -> None: ...

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        return lambda subclass: cls.known.setdefault(name, subclass)

    def _save_pretrained(self, folder: Path) -> None:
        name = next(name for name, own in self.known.items() if own is type(self))
        (folder / "config.json").write_text(json.dumps({"type": name, **dataclasses.asdict(self)}))


class PreTrainedRewardModel(nn.Module, abc.ABC):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(folder))


@dataclass
class Preset:
    lr: float = 0.0
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0
    betas: tuple = ()


@dataclass
class Schedule:
    num_warmup_steps: int
    num_decay_steps: int
    peak_lr: float
    decay_lr: float


class Step:
    def __init__(self, *arguments: Any) -> None: ...


class Pipeline(Step):
    def __class_getitem__(cls, _: Any) -> type:
        return cls

    def __init__(self, steps: list, **_: Any) -> None:
        self.steps = steps


class Registry:
    @classmethod
    def register(cls, name: str) -> Any:
        return lambda step: step


class SampleWeighter(abc.ABC):
    @abc.abstractmethod
    def compute_batch_weights(self, batch: dict) -> Any: ...


@dataclass
class SampleWeightingConfig:
    type: str = "rabc"
    progress_path: str | None = None
    head_mode: str = "sparse"
    kappa: float = 0.01
    epsilon: float = 1e-6
    extra_params: dict = field(default_factory=dict)


def make_sample_weighter(config: Any, policy: Any, device: Any, dataset_root: Any = None, dataset_repo_id: Any = None) -> Any:
    return ("LeRobot's", config)


class EpisodeAwareSampler:
    def __init__(
        self, dataset_from_indices: Any, dataset_to_indices: Any, episode_indices_to_use: Any = None, drop_n_first_frames: int = 0,
        drop_n_last_frames: int = 0, shuffle: bool = False, seed: int = 0, absolute_to_relative_idx: Any = None,
    ) -> None:  # fmt: skip
        spans = zip(dataset_from_indices, dataset_to_indices, strict=True)
        rows = np.concatenate([np.arange(a + drop_n_first_frames, b - drop_n_last_frames) for a, b in spans]).tolist()
        self.indices = [absolute_to_relative_idx[row] for row in rows] if absolute_to_relative_idx else rows
        self.seed, self.state = seed, {"epoch": 0, "start_index": 0}

    def __len__(self) -> int:
        return len(self.indices)

    def state_dict(self) -> dict:
        return self.state

    def load_state_dict(self, state: dict) -> None:
        self.state = state


def modules() -> dict[str, ModuleType]:
    """Returns the stand-in by module name."""
    transition = SimpleNamespace(
        OBSERVATION="observation", COMPLEMENTARY_DATA="complementary_data", REWARD="reward", DONE="done", INFO="info"
    )
    steps = ("AddBatchDimensionProcessorStep", "DeviceProcessorStep", "ProcessorStep")
    processor = {name: type(name, (Step,), {}) for name in steps} | {"PolicyProcessorPipeline": Pipeline, "ProcessorStepRegistry": Registry}
    processor |= {"TransitionKey": transition, "policy_action_to_transition": None, "transition_to_policy_action": None}
    contents: dict[str, dict[str, Any]] = {
        "lerobot": {},
        "lerobot.configs": {},
        "lerobot.configs.rewards": {"RewardModelConfig": RewardModelConfig},
        "lerobot.configs.parser": {"parse_arg": lambda name: None},
        "lerobot.optim": {},
        "lerobot.optim.optimizers": {"AdamWConfig": Preset},
        "lerobot.optim.schedulers": {"CosineDecayWithWarmupSchedulerConfig": Schedule, "LRSchedulerConfig": Schedule},
        "lerobot.rewards": {},
        "lerobot.rewards.pretrained": {"PreTrainedRewardModel": PreTrainedRewardModel},
        "lerobot.processor": processor,
        "lerobot.utils": {},
        "lerobot.utils.sample_weighting": {
            "SampleWeighter": SampleWeighter, "SampleWeightingConfig": SampleWeightingConfig, "make_sample_weighter": make_sample_weighter,
        },
        "lerobot.datasets": {"EpisodeAwareSampler": EpisodeAwareSampler},
        "lerobot.scripts": {},
        "lerobot.scripts.lerobot_train": {"EpisodeAwareSampler": EpisodeAwareSampler},
    }  # fmt: skip
    made = {name: ModuleType(name) for name in contents}
    for name, content in contents.items():
        made[name].__dict__.update(content)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, made[name])
    return made


def install(monkeypatch: Any, folder: Path, *, version: str | None = "0.6.1") -> None:
    """Makes the stand-in importable as LeRobot, and the plugin with it; the test's end takes both away. version: None is not installed."""
    if version is not None:
        about = folder / f"lerobot-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lerobot\nVersion: {version}\n")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lerobot", "lerobot_policy_milepost")]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.syspath_prepend(str(folder))
    RewardModelConfig.known.clear()
