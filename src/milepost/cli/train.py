"""Train a reward model on a dataset. The model folder holds config, weights, log, a model card and the held-out table.

Several GPUs: accelerate launch --multi_gpu --num_processes 2 -m milepost.cli train DATASET --output-dir ...
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from milepost import datasets, encoders, metrics, models
from milepost.cli.console import bars, say, table, warn
from milepost.core import DataError, Episode, Tick, doubts, has_words, output_lock


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder or a Hub id."""
    output_dir: Path
    """Folder of the trained model; it is made if it does not exist."""
    model: Literal["sarm", "topreward"] = "sarm"
    """topreward is refused, because it is zero-shot."""
    preset: Literal["paper", "small"] = "paper"
    """paper: the published sizes, optimiser and encoder (CLIP ViT-B/32), for a GPU. small: 2 layers of width 96 on the built-in encoder; it
    trains in minutes on a CPU."""
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


BUILT_IN = {"image_dim": 64, "text_dim": 32}
"""Widths of the built-in encoder. It has no fixed widths; these were enough in docs/sarm_recipe.md's runs."""

Config = TypeVar("Config", models.SARMConfig, models.TrainConfig)


def _changed(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, **{k: v for k, v in fields.items() if v is not None})


def _require_stages(dataset: datasets.LeRobotDataset, heads: Sequence[str]) -> None:
    """Raises DataError if the dataset's stages are only in a form that SARM does not read; the message says how to convert them."""
    records = [dataset.meta.episodes[number] for number in dataset.episode_indices]
    if (
        heads
        and "subtask_index" in dataset.meta.features
        and not any(record.readable_segments.get(head) for record in records for head in heads)
    ):
        raise DataError(
            f"{dataset.name} has its stages as subtask_index, one for every frame, and no {' or '.join(heads)} annotation; bring them over "
            f"first: milepost annotate DATASET --from-subtask-index {heads[0]}"
        )


def main(args: Args) -> int:
    """Trains, evaluates and saves the model; returns 1 if an episode cannot be read."""
    _check(args)
    dataset = datasets.open_dataset(args.dataset, revision=args.revision, episodes=args.episodes)
    dataset = dataset.showing(args.image_key)
    _require_stages(dataset, _changed(models.PRESETS[args.preset][0], annotation_mode=args.annotation_mode).annotated_heads)
    cameras = dataset.choose_cameras(args.image_key, flag="--image-key")
    sarm, train = models.PRESETS[args.preset]
    sarm = _changed(
        sarm, annotation_mode=args.annotation_mode, image_key=cameras[0], more_image_keys=cameras[1:],
        state_key=args.state_key, n_obs_steps=args.n_obs_steps, gap_s=args.gap_s, frame_gap=args.frame_gap, window=args.window,
        attention="lerobot" if args.window == "centred" else None, unfinished=args.unfinished,
    )  # fmt: skip
    if args.for_lerobot:
        # LeRobot normalises states with the statistics of the dataset it labels: the model learns with the same
        sarm = models.lerobot_architecture(sarm, dataset.fps)
        if sarm.state_key in dataset.meta.features:
            sarm = models.with_state_stats(sarm, models.read_state_stats(dataset.root, sarm.state_key, dataset.name))
    elif args.encoder is not None:
        sarm = _changed(sarm, encoder=args.encoder, **(BUILT_IN if args.encoder == "pixels" else {}))
    device = models.local_device(_device(args.device))
    train = _changed(
        train, steps=args.steps, epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, seed=args.seed, device=device,
        mixed_precision=args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION"), eval_every=args.eval_every,
        patience=args.patience, overwrite=args.overwrite, tracking=models.Tracking(args.log_to, args.project, args.run_name),
    )  # fmt: skip
    train = dataclasses.replace(train, validation=args.validation, more_follows=True)
    encoder = encoders.load_encoder(args.encoder or sarm.encoder, device=device, text_width=sarm.text_dim)
    with models.init_process_group(device) as process_group, output_lock(args.output_dir) if process_group.is_main else nullcontext():
        _require_free(args)
        with bars() if process_group.is_main else _silent() as bar:
            folder, tick = None if args.no_cache else encoders.cache_folder(), bar("read and encode frames")
            features = encoders.FeatureCache(folder, dataset.fingerprint, encoder=encoder, half=folder is not None, on_frames=tick)
            episodes, unreadable = models.read_episodes(dataset)
            trained = models.train_sarm(
                episodes, sarm, train, folder=args.output_dir, stages=dataset.stages, holdout=args.holdout, features=features, on_stage=bar
            )
            if not process_group.is_main:
                return 0
            unreadable |= trained.unreadable
            held_out_episodes = [episode for episode in episodes if episode.index in trained.held_out]
            summaries = models.evaluate_held_out(
                trained.model, held_out_episodes, on_progress=bar("evaluate held-out"), seed=args.seed,
                on_unreadable=lambda number, error: unreadable.update({number: str(error)}),
            )  # fmt: skip
        models.save_card(args.output_dir, trained, dataset.name, summaries, fingerprint=dataset.fingerprint)
        if args.for_lerobot:
            trained.model.save_pretrained(args.output_dir / "lerobot", format="lerobot")
        _report(args, trained, summaries, unreadable, _doubts(episodes, trained))
        models.finish_run(args.output_dir)
    return 1 if unreadable else 0


def _doubts(episodes: Sequence[Episode], trained: models.TrainResult) -> list[str]:
    """Returns warnings about the annotation of the training episodes that may not mean what it says."""
    config = trained.model.config
    training = [episode for episode in episodes if episode.index in trained.train_episodes]
    blank = sum(not has_words(episode.task) for episode in training)
    words = [f"{blank} of the episodes learnt from have a blank task: the model knows them by no instruction"] if blank else []
    return words + [words for head in config.annotated_heads for words in doubts(models.attempts_of(training, head), config.heads[head])]


def _report(
    args: Args,
    trained: models.TrainResult,
    summaries: Mapping[str, metrics.Summary],
    unreadable: Mapping[int, str],
    questionable: Sequence[str],
) -> None:
    """Reports what was left out, the table, and the saved checkpoint; uploads the model if asked."""
    for omission in trained.left_out:
        warn(str(omission))
    for number, reason in unreadable.items():
        warn(f"episode {number} is left out: {reason}")
    for words in questionable:
        warn(words)
    groups = (trained.train_episodes, trained.validation_episodes, trained.held_out)
    say("episodes learnt from: {}, to choose the checkpoint: {}, held out: {}".format(*map(len, groups)))
    if args.holdout and not trained.held_out:
        warn("nothing could be held out (each task and kind keeps one scene to learn from), so nothing is known of how good this model is")
    if summaries:
        count = len(set(trained.held_out) - set(unreadable))
        table(f"{count} held-out episodes (95 % intervals over episodes)", *metrics.summary_table(summaries))
    _say_what_came_out(args, trained)


def _check(args: Args) -> None:
    """Refuses wrong options before any work."""
    models.require_trainable(args.model)
    _require_free(args)
    if args.steps is not None and args.epochs is not None:
        raise DataError(f"--steps {args.steps} and --epochs {args.epochs:g} contradict each other; give one of them")
    if args.push_to_hub is not None:
        datasets.require_repository(args.push_to_hub)
    models.require_trackers(models.Tracking(args.log_to, args.project, args.run_name))
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ and models.launched_processes() == 1:
        warn(
            "accelerate launch --cpu started one process only; for several: accelerate launch --multi_gpu --num_processes N, without --cpu"
        )


def _require_free(args: Args) -> None:
    """Raises DataError if a finished model would be replaced without --overwrite."""
    folder = args.output_dir
    if (folder / "config.json").exists() and not (args.overwrite or models.is_unfinished(folder)):
        raise DataError(f"there is a trained model in {folder} already; use --overwrite or another --output-dir")


def _device(name: str) -> str:
    """Returns the device; "auto" also obeys `accelerate launch --cpu`."""
    return "cpu" if name == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" else encoders.resolve_device(name)


@contextmanager
def _silent() -> Iterator[Callable[[str], Tick]]:
    yield lambda name: lambda count, total: None


def _say_what_came_out(args: Args, trained: models.TrainResult) -> None:
    fitted = trained.fit_result
    if trained.validation_episodes:
        aside = f"{len(trained.validation_episodes)} episodes kept aside for it"
        say(f"best after step {fitted.kept} of {fitted.steps} (validation loss {fitted.scores['validation_loss']:.4f}, {aside})")
    say(f"model: {args.output_dir}")
    if args.push_to_hub is not None:
        say(f"uploaded: {datasets.upload_model(args.output_dir, args.push_to_hub, private=True)}")
