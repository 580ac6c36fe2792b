"""The options of LeRobot's programs and what becomes of each here: another name, nothing at all, or a refusal.

They are those of LeRobot 0.6.1, and some of earlier versions. `tests/data/lerobot_train_options.txt` has the list that LeRobot itself gave.
All are written with dashes here; a command line may have underscores.
"""

from __future__ import annotations

DATASET = ("--dataset-repo-id", "--repo-id", "--dataset.repo-id", "--dataset.root")
"""How LeRobot's programs name the dataset; the last one of this list that is given counts, since a folder comes before an id."""
MODELS = ("--policy.", "--reward-model.")
SARM = (
    "annotation-mode", "image-key", "state-key", "n-obs-steps", "frame-gap", "device", "gap-s", "encoder", "window", "unfinished",
    "augmentation",
)  # fmt: skip
"""What a SARM config of LeRobot's, or of the plugin's `milepost_sarm`, calls as `milepost train` does."""
RENAMED: dict[str, dict[str, str]] = {
    "label": {"--num-samples": "--num-prefixes"},
    "plot": {"--num-samples": "--num-prefixes"},
    "annotate": {"--dtype": "--precision"},
    "train": {
        **{f"{group}{name}": f"--{name}" for group in MODELS for name in SARM},
        **{f"{group}optimizer-lr": "--lr" for group in MODELS},
        "--optimizer.lr": "--lr",
        "--dataset.revision": "--revision",
        "--dataset.eval-split": "--validation",
        "--wandb.project": "--project",
        "--job-name": "--run-name",
    },
    "weigh": {
        "--sample-weighting.type": "--rule",
        "--sample-weighting.progress-path": "--progress",
        **{f"--sample-weighting.{name}": f"--{name}" for name in ("head-mode", "kappa", "epsilon")},
    },
}
"""Verb -> LeRobot's option -> ours, each with one value."""
NOT_NEEDED = (
    "--num-workers", "--prefetch-factor", "--persistent-workers", "--dataloader-multiprocessing-context", "--cudnn-deterministic",
    "--log-freq", "--save-freq", "--save-checkpoint", "--resume", "--eval-freq", "--env-eval-freq", "--max-eval-samples", "--tolerance-s",
    "--use-policy-training-preset", "--eval.n-episodes", "--eval.batch-size", "--eval.use-async-envs", "--dataset.video-backend",
    "--dataset.return-uint8", "--dataset.use-imagenet-stats", "--wandb.disable-artifact", "--wandb.add-tags",
)  # fmt: skip
"""Options of `lerobot-train` without a counterpart in `milepost train`, which decides these by itself and always goes on."""
TRAINING = (
    *(f"{group}{name}" for group in MODELS for name in ("type", "repo-id", "push-to-hub")),
    "--wandb.enable",
    "--dataset.episodes",
    "--eval-steps",
    *NOT_NEEDED,
)
"""Options of `lerobot-train` that `milepost train` understands, and that are no mere name."""
_OF_MODELS = (
    "path", "input-features", "output-features", "pretrained-path", "pretrained-revision", "license", "tags", "private", "max-rewind-steps",
    "image-dim", "text-dim", "hidden-dim", "num-heads", "num-layers", "max-state-dim", "drop-n-last-frames", "batch-size",
    "clip-batch-size", "dropout", "stage-loss-weight", "rewind-probability", "language-perturbation-probability", "num-sparse-stages",
    "sparse-subtask-names",
    "sparse-temporal-proportions", "num-dense-stages", "dense-subtask-names", "dense-temporal-proportions", "pretrained-model-path",
    "normalization-mapping",
)  # fmt: skip
REFUSED = (
    *(f"{group}{name}" for group in MODELS for name in _OF_MODELS),
    *(f"--dataset.image-transforms.{name}" for name in ("enable", "max-num-transforms", "random-order", "tfs")),
    *(f"--dataset.{name}" for name in ("repo-type", "depth-output-unit", "streaming")),
    *(f"--eval.{name}" for name in ("recording", "recording-repo-id", "recording-private")),
    *(f"--wandb.{name}" for name in ("entity", "notes", "run-id", "mode")),
    *(f"--peft.{name}" for name in ("target-modules", "full-training-modules", "method-type", "init-type", "r", "lora-alpha")),
    *(f"--job.{name}" for name in ("target", "image", "timeout", "detach", "tags")),
    *(f"--sample-weighting.{name}" for name in ("type", "progress-path", "head-mode", "kappa", "epsilon", "extra-params")),
    "--env.type", "--optimizer.type", "--scheduler.type", "--save-checkpoint-to-hub", "--rename-map", "--config-path",
)  # fmt: skip
"""Options of `lerobot-train` that would change what is trained, or where, and that `milepost train` lacks."""
INSTEAD = {
    "image-transforms": "; changes of the images are --augmentation 0.5",
    "hidden-dim": "; the sizes come with --preset small or paper",
    "num-layers": "; the sizes come with --preset small or paper",
    "num-heads": "; the sizes come with --preset small or paper",
    "pretrained-path": "; milepost train begins anew, and continues an interrupted run by the same command",
    "path": "; milepost train begins anew, and continues an interrupted run by the same command",
    "save-checkpoint-to-hub": "; --push-to-hub OWNER/NAME uploads the finished model",
}
"""Part of a refused option -> what comes nearest to it."""
SWITCHES = ("--visualize-only",)
"""Options of LeRobot's programs without a value."""
PREFIXES = (
    *MODELS, "--dataset.", "--wandb.", "--sample-weighting.", "--env.", "--eval.", "--peft.", "--job.", "--optimizer.", "--scheduler.",
)  # fmt: skip
POLICIES = (
    "act", "diffusion", "eo1", "evo1", "fastwam", "gaussian_actor", "groot", "lingbot_va", "molmoact2", "multi_task_dit", "pi0", "pi05",
    "pi0_fast", "smolvla", "tdmpc", "vla_jepa", "vqbet", "wall_x", "xvla",
)  # fmt: skip
REWARD_MODELS = ("reward_classifier", "robometer", "sarm", "topreward")
OF_PLUGIN = "milepost_"
"""What the plugin's names of our models begin with."""


def options_of(verb: str) -> tuple[str, ...]:
    """Returns LeRobot's options that this verb understands, or refuses by name, as LeRobot writes them.

    >>> options_of("annotate")
    ('--dataset-repo-id', '--repo-id', '--dataset.repo_id', '--dataset.root', '--dtype')
    """
    flags = (*DATASET, *RENAMED.get(verb, {}), *((*TRAINING, *REFUSED) if verb == "train" else ()))
    return tuple(dict.fromkeys(as_lerobot_writes(flag, verb) for flag in flags))


def as_lerobot_writes(flag: str, verb: str = "train") -> str:
    """Returns an option with underscores inside its name, as `lerobot-train` has it, or with dashes if another program has it so."""
    return f"--{flag.removeprefix('--').replace('-', '_')}" if verb == "train" or "." in flag else flag
