"""Train a reward model on a dataset.

The model folder holds config, weights, log, a model card and the held-out table.

Several GPUs: accelerate launch --multi_gpu --num_processes 2 -m milepost train DATASET --output-dir ...
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from milepost import datasets, encoders, metrics, models, progress
from milepost.cli.console import bars, say, table, unlisted, warn, warn_all
from milepost.core import DataError, count_noun


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...)."""
    output_dir: Path
    """Folder of the trained model; it is made if it does not exist."""
    training_options: Annotated[models.TrainingOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.TrainingOptions)
    model: str = "sarm"
    """The kind of model: sarm (stages and progress within them), value (time to success, learnt from failures too), success (whether the
    task is done, from next.success or outcomes), or robometer and roboreward, which are fine-tuned with --head-only or --lora."""
    preset: Literal["paper", "small"] | None = None
    """For SARM, default: paper. paper: the published sizes, optimiser and encoder (CLIP ViT-B/32), for a GPU. small: 2 layers of width 96
    on the built-in encoder; it trains in minutes on a CPU."""
    annotation_mode: models.AnnotationMode = "single_stage"
    encoder: str | None = None
    """A CLIP or SigLIP model (folder or owner/name), or "pixels" for the built-in encoder; default: the preset's."""
    no_cache: tyro.conf.FlagCreatePairsOff[bool] = False
    """Do not cache the frames' features on disk (the cache has half precision)."""
    image_key: tuple[str, ...] = ()
    """One or several cameras to use; default: all cameras of the dataset."""
    state_key: str | None = None
    """Column of the robot states; default: observation.state."""
    n_obs_steps: int | None = None
    gap_s: float | None = None
    """Seconds between the frames of the window."""
    frame_gap: int | None = None
    """The same in frames, for any frame rate."""
    window: Literal["causal", "centred"] | None = None
    """causal (default): no later frames, so it works online. centred: LeRobot's window and attention, which use later frames."""
    for_lerobot: bool = False
    """Also save a model that LeRobot can load, in OUTPUT_DIR/lerobot: centred window in frames, LeRobot's attention and decoding, one
    camera, CLIP ViT-B/32."""
    unfinished: Literal["mask", "zero"] | None = None
    """Target within the last stage of an attempt that did not advance. mask: no loss. zero: progress 0. docs/sarm_recipe.md compares
    them."""
    augmentation: float | None = None
    """Strength of the changes of light, contrast, colour, place and noise in training; 0.5 makes a model bear a lamp or a nudged camera.
    Encoding images then takes five times as long, except with the built-in encoder. Default: 0, none."""
    steps: int | None = None
    epochs: float | None = None
    """Passes over the labelled training frames, instead of --steps."""
    batch_size: int | None = None
    """Samples per step in each process."""
    lr: float | None = None
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] | None = None
    """Default: the setting of accelerate launch, else auto: bf16 on a CUDA GPU that supports it, none on a CPU."""
    holdout: float = 0.1
    """Proportion of the start scenes (or episodes) that are held out from training and used for the evaluation."""
    validation: float | None = None
    """Proportion of the training scenes in the validation set, which chooses the best checkpoint; it has no held-out scene. 0: the last
    checkpoint is used. Default: 0.1 if there are at least 10 training episodes, else 0."""
    eval_every: int | None = None
    """Steps between evaluations; default: a twentieth of the steps."""
    patience: int | None = None
    """Stop after this number of evaluations without improvement; default: never."""
    log_to: tuple[models.Tracker, ...] = ()
    """Trackers besides log.jsonl: tensorboard, wandb, trackio."""
    project: str = "milepost"
    """Project name for --log-to."""
    run_name: str | None = None
    """Run name for --log-to; default: the name of the output folder."""
    push_to_hub: str | None = None
    """Upload card, config and weights to this Hub repository, owner/name. A new repository is private."""
    episodes: str | None = None
    """Episodes to use, such as 0-9,12 or 0 1 2; default: all."""
    revision: str | None = None
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    """Replace a model, or an unfinished run with other settings, in the output folder."""


def main(args: Args) -> int:
    """Trains, evaluates and saves the model; returns 1 if an episode cannot be read."""
    _check(args)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes).showing(args.image_key)
    plan = models.trainer_of(args.model).plan(
        dataset, args.preset, image_key=args.image_key, encoder=args.encoder, holdout=args.holdout, keep_features=not args.no_cache,
        for_lerobot=args.for_lerobot, annotation_mode=args.annotation_mode, state_key=args.state_key, n_obs_steps=args.n_obs_steps,
        gap_s=args.gap_s, frame_gap=args.frame_gap, window=args.window, unfinished=args.unfinished, augmentation=args.augmentation,
        steps=args.steps, epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, seed=args.seed,
        device=models.local_device(_device(args.device)), validation=args.validation, eval_every=args.eval_every, patience=args.patience,
        mixed_precision=args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION"), overwrite=args.overwrite,
        tracking=models.Tracking(args.log_to, args.project, args.run_name), **models.training_changes(args.model, args.training_options),
    )  # fmt: skip
    with models.training_run(dataset, args.output_dir, plan, bars=bars) as result:
        if result.is_main:
            _report(args, result)
    return 1 if result.is_main and result.unreadable else 0


def _report(args: Args, trained: models.TrainResult) -> None:
    """Reports what was left out, the table, and the saved checkpoint; uploads the model if asked."""
    for omission in trained.left_out:
        warn(str(omission))
    warn_all(unlisted(trained.unreadable))
    for words in trained.doubts:
        warn(words)
    groups = (trained.train_episodes, trained.validation_episodes, trained.held_out)
    say("episodes learnt from: {}, to choose the checkpoint: {}, held out: {}".format(*map(len, groups)))
    if args.holdout and not trained.held_out:
        warn("nothing could be held out (each task and kind keeps one scene to learn from), so nothing is known of how good this model is")
    if trained.losses:
        say("held-out loss: {before:.4f} before, {after:.4f} after".format(**trained.losses))
    if trained.summaries:
        count = len(set(trained.held_out) - set(trained.unreadable))
        table(f"{count_noun(count, 'held-out episode')} (95 % intervals over episodes)", *metrics.summary_table(trained.summaries))
    if (fitted := trained.threshold) is not None:
        _say_threshold(fitted)
    if trained.audit is not None:
        words = progress.verdict_in_words(trained.audit.verdict, trained.audit.reason)
        say(f"a reward, or a clock? on held-out episodes: {trained.audit.verdict}, {words}")
    elif trained.held_out:
        say(f"a reward, or a clock? not audited: {metrics.FEWEST} held-out episodes that are no failures are needed")
    _say_what_came_out(args, trained)


def _say_threshold(fitted: metrics.Threshold) -> None:
    """Says which threshold was fitted on what, and how often it was wrong; or that nobody can know that."""
    say(
        f"success threshold: {metrics.in_words(fitted.value, *fitted.interval)}, fitted on episodes not learnt from: {fitted.counts()}; "
        f"AUC {metrics.in_words(fitted.auc, *fitted.auc_interval)}"
    )
    if mistakes := fitted.mistakes():
        accuracy = metrics.in_words(fitted.accuracy, *fitted.accuracy_interval)
        say(f"each judged by a threshold fitted without it: {mistakes}; balanced accuracy {accuracy}")
    else:
        say("how good this threshold is cannot be said: that needs two successes and two failures not learnt from (a larger --holdout)")


def _check(args: Args) -> None:
    """Refuses wrong options before any work."""
    models.trainer_of(args.model)
    models.require_free(args.output_dir, overwrite=args.overwrite)
    if args.steps is not None and args.epochs is not None:
        raise DataError(f"--steps {args.steps} and --epochs {args.epochs:g} contradict each other; give one of them")
    if args.push_to_hub is not None:
        datasets.require_repository(args.push_to_hub)
    models.require_trackers(models.Tracking(args.log_to, args.project, args.run_name))
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ and models.launched_processes() == 1:
        warn(
            "accelerate launch --cpu started one process only; for several: accelerate launch --multi_gpu --num_processes N, without --cpu"
        )


def _device(name: str) -> str:
    """Returns the device; "auto" also obeys `accelerate launch --cpu`."""
    return "cpu" if name == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" else encoders.resolve_device(name)


def _say_what_came_out(args: Args, trained: models.TrainResult) -> None:
    fitted = trained.fit_result
    if trained.validation_episodes:
        aside = f"{count_noun(len(trained.validation_episodes), 'episode')} kept aside for it"
        say(f"best after step {fitted.kept} of {fitted.steps} (validation loss {fitted.scores['validation_loss']:.4f}, {aside})")
    say(f"model: {args.output_dir}")
    if args.push_to_hub is not None:
        say(f"uploaded: {datasets.upload_model(args.output_dir, args.push_to_hub, private=True)}")
