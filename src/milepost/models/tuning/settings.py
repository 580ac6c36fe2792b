"""What is fine-tuned and how: the changes to a model's config and to the training that a command or a Python caller asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.core import DataError, Episode, Tick, read_json_object, require_cameras
from milepost.datasets import LeRobotDataset
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import TrainResult
from milepost.models.training.settings import Plan, divided_changes
from milepost.models.tuning.card import save_card
from milepost.models.tuning.options import TuningOptions
from milepost.models.tuning.run import Tuning, fine_tune
from milepost.models.tuning.tuner import Tuner
from milepost.vlm import Lora, require_peft

TRAIN = {
    "heads": TrainConfig(steps=500, batch_size=32, lr=1e-4, weight_decay=1e-2),
    "lora": TrainConfig(steps=300, batch_size=8, lr=1e-4, weight_decay=0.0),
}
OF_OTHERS: Mapping[str, Any] = {"annotation_mode": "single_stage", "for_lerobot": False}
"""Settings of other models that a command always gives, with the value that means nothing."""
OPTIONS = (
    *(each.name for each in dataclasses.fields(TuningOptions)), "image_key", "steps", "epochs", "batch_size", "lr", "seed", "device",
    "mixed_precision", "validation", "eval_every", "patience", "overwrite",
)  # fmt: skip
"""Settings that are options of `milepost train` too."""
INNER = {
    "device", "pretrained_path", "tuned", "tuned_on", "image_key", "torch_dtype", "mixed_precision", "accumulate", "more_follows",
}  # fmt: skip
"""Fields that nobody sets, or under another name."""
PRECISIONS = {"auto": "auto", "no": "float32", "bf16": "bfloat16"}
"""What the VLM computes in, by the setting of `mixed_precision`. The weights that are learnt are float32."""


@dataclass(frozen=True)
class TuningPlan(Plan):
    """What is fine-tuned (`config`), how (`train`), and what of it (`tuning`)."""

    tuner: Tuner = field(default_factory=Tuner)
    tuning: Tuning = field(default_factory=Tuning)

    def opened(self, dataset: LeRobotDataset, train: TrainConfig) -> Callable[..., TrainResult]:
        """Returns what trains, with its checkpoint loaded."""
        base = Path(self.config.vlm_name).expanduser() / "config.json"
        if base.is_file() and {"tuned", "learnt"} & set(read_json_object(base, what="model config")):
            raise DataError(
                f"{self.config.vlm_name} is a fine-tuned model; start from its checkpoint, the vlm_name in its config.json, on all episodes"
            )
        model = self.tuner.MODEL(dataclasses.replace(self.config, device=train.device))
        _ = model.engine

        def run(episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]) -> TrainResult:
            tuning = dataclasses.replace(self.tuning, holdout=self.holdout)
            return fine_tune(self.tuner, model, episodes, (train, tuning), folder=folder, own=dataset.stages, on_stage=on_stage)

        return run

    def concluded(
        self, result: TrainResult, dataset: LeRobotDataset, episodes: Sequence[Episode], folder: Path, on_stage: Callable[[str], Tick]
    ) -> TrainResult:
        """Returns the result as it is."""
        return result

    def save_card(self, folder: Path, result: TrainResult, dataset: LeRobotDataset) -> None:
        """Writes the card."""
        save_card(folder, result, dataset.name, fingerprint=dataset.fingerprint)


def plan(
    tuner: Tuner,
    dataset: LeRobotDataset,
    preset: str | None = None,
    *,
    head_only: bool = False,
    lora: bool = False,
    image_key: str | Sequence[str] = (),
    holdout: float = 0.1,
    keep_features: bool = True,
    **changes: Any,
) -> TuningPlan:
    """Returns how a model is fine-tuned. changes: fields of its config, of TrainConfig or of Tuning by name; None leaves the default.

    head_only, lora: one of them. DataError if it is neither or both, or if there is no such setting or camera.
    """
    config_class = tuner.MODEL.config_class
    title = config_class.title
    if preset is not None:
        raise DataError(f"{title} has no preset '{preset}'; leave --preset out, and name the checkpoint to start from with --vlm-name")
    if head_only == lora:
        raise DataError(f"a {title} is fine-tuned with --head-only or with --lora; give {'one of them' if lora else 'one'}")
    if lora:
        require_peft()
    changes = {name: each for name, each in changes.items() if each is not None and OF_OTHERS.get(name, name) != each}
    rank, alpha = changes.pop("lora_rank", None), changes.pop("lora_alpha", None)
    for name, value in (("rank", rank), ("alpha", alpha)):
        if value is not None and value < 1:
            raise DataError(f"--lora-{name} should be at least 1, got {value}")
    if not lora and (rank is not None or alpha is not None):
        raise DataError("--lora-rank and --lora-alpha mean nothing with --head-only")
    precision = changes.pop("mixed_precision", "auto")
    if precision not in PRECISIONS:
        raise DataError(f"a {title} is fine-tuned in bf16 or float32, not in {precision}: use --mixed-precision bf16 or no")
    groups = (_own(config_class), _own(TrainConfig) | {"device"}, _own(Tuning) - {"holdout", "lora"})
    of_model, of_loop, of_tuning = divided_changes(groups, changes, unknown=f"{{flag}} means nothing to a {title}", options=OPTIONS)
    if "base_url" in of_model:
        raise DataError(f"a {title} on a server cannot be fine-tuned; load the checkpoint here, with --vlm-name")
    config = config_class(image_key=_camera(dataset, image_key, config_class.image_key), torch_dtype=PRECISIONS[precision], **of_model)  # type: ignore[arg-type]
    train = dataclasses.replace(TRAIN["lora" if lora else "heads"], **{"validation": None, **of_loop})
    train = dataclasses.replace(train, mixed_precision="no", accumulate=train.batch_size if lora else 1)
    of_lora = {name: value for name, value in (("rank", rank), ("alpha", alpha)) if value is not None}
    tuning = Tuning(lora=Lora(**of_lora) if lora else None, **of_tuning)
    return TuningPlan(config, train, "", holdout, keep_features, tuner, tuning)


def _own(config: type) -> set[str]:
    """Returns the fields of a config that can be set."""
    return {each.name for each in dataclasses.fields(config)} - INNER


def _camera(dataset: LeRobotDataset, image_key: str | Sequence[str], usual: str) -> str:
    """Returns the camera to look at: the named one, else the usual one, or the only one. DataError if it is none of these."""
    names = (image_key,) if isinstance(image_key, str) else tuple(image_key)
    if len(names) > 1:
        raise DataError(f"this model looks at one camera, got {', '.join(names)}; name one with --image-key")
    cameras = dataset.showing(names).choose_cameras(names, flag="--image-key")
    if len(cameras) == 1:
        return str(cameras[0])
    require_cameras([usual], cameras, hint="choose with --image-key")
    return usual
