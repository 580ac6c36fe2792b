"""SARM: episode -> progress by stage and progress within the stage (arXiv 2509.25358).

    progress = sum_k p(stage k) (P_{k-1} + alpha_k tau_k)        decode="expected"
    progress = P_{k-1} + alpha_k tau_k, k the likeliest stage    decode="argmax", the paper's

The stage names, shares, state statistics and the encoder are part of the saved model: labelling another dataset never uses that
dataset's own. In a causal window nothing after a frame changes its progress, so `step` gives the same curve while the robot moves.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from milepost.core import (
    RAW,
    Curve,
    DataError,
    Dataset,
    Episode,
    Progress,
    Signal,
    Step,
    UnreadableError,
    interpolate,
    spread,
    strided,
)
from milepost.datasets import find_model
from milepost.encoders import Encoder, Precision, load_encoder, require_device
from milepost.models.encoded import EncodedModel
from milepost.models.online import History, Windows
from milepost.models.sarm import checkpoint
from milepost.models.sarm.checkpoint import StateStats
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.loss import counts_of, labels_of, teacher_forced_stage
from milepost.models.sarm.network import StreamTransformer, decode, each_stage, one_hot
from milepost.models.sarm.readiness import familiar_state, stats_of
from milepost.models.sarm.samples import pad_state, window_frames
from milepost.models.training.distributed import SINGLE_PROCESS, ProcessGroup

BATCH = 32  # frames whose windows are read at once


class SARMModel(EncodedModel):
    """The two networks and the config that made them, after a frozen encoder.

    cache: where features of the dataset at hand are kept; None keeps nothing. precision: what the networks compute in.

    >>> from milepost.testing import dot_episodes, tiny_sarm
    >>> tiny_sarm().save_pretrained("model")
    >>> model = milepost.SARMModel.from_pretrained("model")
    >>> len(model.predict(dot_episodes(1)[0]).main.value)
    33
    """

    WRONG_INSTRUCTION = "means no progress"
    config: SARMConfig

    def __init__(self, config: SARMConfig, precision: Precision = "float32") -> None:
        super().__init__(config, precision)
        self._took_statistics = False
        heads = config.heads
        dims = {"image": config.image_dim, "text": config.text_dim, "state": config.max_state_dim, "hidden": config.hidden_dim}
        self.stage_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs={head: len(stages) for head, stages in heads.items()},
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=False, attention=config.attention,
        )  # fmt: skip
        self.subtask_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs=dict.fromkeys(heads, 1),
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=True, attention=config.attention,
        )  # fmt: skip

    def run_settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the heads, the stride, and what the frames were encoded with."""
        return {**self.config.run_settings(options), **super().run_settings(options), "precision": self.precision}

    def settle(self, dataset: Dataset) -> None:
        """Takes the state statistics of the dataset, with a warning, for a LeRobot checkpoint that has none and was given none by
        `use_state_stats`. DataError if they are not there.
        """
        if not self.config.state_stats_from:
            self.use_state_stats(stats_of(dataset, self.config.state_key))
            self._took_statistics = True

    @property
    def is_for_one_dataset(self) -> bool:
        """Returns whether the state statistics are those of the dataset that the model is ready for."""
        return self._took_statistics

    def normalised_state(self, state: Float[np.ndarray, "T S"]) -> Float[np.ndarray, "T Z"]:
        """Returns robot states by the training set's statistics, padded or cut to `max_state_dim`."""
        return pad_state(state, self.config)

    # What the encoder makes. Every way into the networks takes its features from `features` or `frame_features`.

    def features(self, episode: Episode, frames: Int[np.ndarray, "N"] | None = None) -> Float[np.ndarray, "N C E"]:
        """Returns the image features of every frame (or of these), decoded and encoded once; half precision if from a cache."""
        cache, cameras = self.feature_cache, self.config.cameras
        return self.project(cache.features(episode, cameras) if frames is None else cache.features_at(episode, cameras, frames))

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> Shaped[np.ndarray, "N P"]:
        """Returns the frozen encoder's output for images, before `project`. With `text`, this lets a model stand for its encoder."""
        return self.frozen.images(images)

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Returns the features of sentences."""
        return self.frozen.text(sentences)

    def text_features(self, task: str) -> Float[np.ndarray, "M"]:
        """Returns the features of an instruction."""
        return self.text([task])[0]

    # Training

    def loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None = None, process_group: ProcessGroup = SINGLE_PROCESS
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns stage cross-entropy + within-stage squared error, over valid frames with a known label, summed over the heads.

        `batch` is `TrainingSet.sample`'s, on any device: labels that are on the CPU are counted there, and a GPU need not be waited for.
        Returns the scalar loss and its parts by name, "loss" among them. With `process_group`, this is one process's part of one batch:
        means are over the labels of all processes, so that the sum over them is the loss of one process with the whole batch.
        """
        return self._loss(batch, generator, process_group, ratio=self.config.gt_stage_ratio)

    def _loss(
        self, batch: Mapping[str, Tensor], generator: torch.Generator | None, process_group: ProcessGroup, *, ratio: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        labels = {head: labels_of(batch, head) for head in self.config.heads}
        counts = counts_of(list(labels.values()), process_group, self.device)
        inputs = self._inputs(batch)
        stage_logits = self._stage_logits(inputs, self.config.heads, slice(None))
        device_labels = {head: tuple(label.to(self.device, non_blocking=True) for label in labels[head]) for head in labels}
        losses, stages = {}, []
        for (head, (stage, _, _)), (known_stages, _) in zip(device_labels.items(), counts, strict=True):
            stage_loss = F.cross_entropy(stage_logits[head].flatten(0, 1), stage.flatten(), ignore_index=-1, reduction="sum")
            losses[f"{head}_stage_loss"] = stage_loss / known_stages
            stages.append(teacher_forced_stage(stage_logits[head], stage, self.coins(len(stage), generator, process_group), ratio))
        hidden = self.subtask_model(*inputs, stages=stages).unbind(1)
        for (head, (_, tau, places)), (_, known_taus), hidden_states in zip(device_labels.items(), counts, hidden, strict=True):
            predicted = self.subtask_model.heads[head](hidden_states).float().sigmoid().flatten()
            losses[f"{head}_tau_loss"] = F.mse_loss(predicted[places], tau.flatten()[places], reduction="sum") / known_taus
        total = torch.stack(list(losses.values())).sum()
        return total, {name: loss.detach() for name, loss in {**losses, "loss": total}.items()}

    def coins(self, count: int, generator: torch.Generator | None, process_group: ProcessGroup) -> Float[Tensor, "B 1"]:
        """Returns a number in [0, 1) for each of this process's samples: below `gt_stage_ratio` the true stage is shown.

        A recipe that draws them otherwise overrides this (benchmarks/lerobot_recipe.py).
        """
        whole = count * process_group.world_size
        return torch.rand(whole, 1, generator=generator)[process_group.shard(whole)]

    def _inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images, text, state, valid = (batch[name].to(self.device, non_blocking=True) for name in ("images", "text", "state", "valid"))
        return images, text, state, valid

    @torch.no_grad()
    def validation_scores(self, windows: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns "validation_loss" and "validation_error" on windows like `TrainingSet.plain`'s; the true stage is never shown.

        The error is the mean distance of progress from its label at the current frame, of the finest head; absent without labels there.
        """
        loss, _ = self._loss(windows, None, SINGLE_PROCESS, ratio=0.0)
        head = "dense" if "dense" in self.config.heads else "sparse"
        stages, now = self.config.heads[head], self.config.now
        stage, tau = (windows[f"{head}_{name}"][:, now].cpu() for name in ("stage", "tau"))
        labelled = (stage >= 0) & ~torch.isnan(tau)
        if not labelled.any():
            return {"validation_loss": loss.item()}
        progress = self.read(*self._inputs(windows), at=now)[f"{head}_progress"].float().cpu()
        truth = torch.tensor(stages.starts)[stage] + torch.tensor(stages.shares)[stage] * tau
        return {"validation_loss": loss.item(), "validation_error": (progress - truth)[labelled].abs().mean().item()}

    # Looking back at a recorded episode

    @torch.no_grad()
    def predict(self, episode: Episode, *, heads: Sequence[str] | None = None, stride: int = 1, task: str | None = None) -> Progress:
        """Returns progress of every frame by each head; its signal "raw" is k + tau.

        heads: only these; the sparse one is always among them. stride: look at every stride-th frame and the last; between them
        progress is interpolated, raw and stage are NaN. task: instead of the episode's. UnreadableError if the instruction is blank and the
        model did not learn from blank ones.
        """
        episode = episode if task is None else dataclasses.replace(episode, task=task)
        if stride == 1:
            return self.predict_features(episode, self.features(episode), heads=heads)
        at = strided(episode.length, stride)
        needed = np.unique(window_frames(at, self.config, self.config.gap(episode.fps), episode.length)[0])
        computed = self.features(episode, needed)
        features = np.zeros((episode.length, *computed.shape[1:]), dtype=computed.dtype)
        features[needed] = computed
        return self.predict_features(episode, features, heads=heads, at=at)

    @torch.no_grad()
    def predict_features(
        self,
        episode: Episode,
        features: Float[np.ndarray, "T C E"],
        *,
        text: Float[np.ndarray, "M"] | None = None,
        heads: Sequence[str] | None = None,
        at: Int[np.ndarray, "N"] | None = None,
    ) -> Progress:
        """Returns `predict` from features already computed; the images are not read.

        text: features of the instruction, else computed here. at: the frames to look at, in order, first and last among them.
        """
        head_names = self.config.chosen_heads(heads)
        self.eval()
        if text is None and (fault := self.blank_fault(episode.task)):
            raise UnreadableError(f"episode {episode.index}: {fault}")
        state = familiar_state(episode, self.config)
        words = torch.from_numpy(self.text_features(episode.task) if text is None else text).to(self.device)
        parts = []
        places, gap = np.arange(episode.length) if at is None else at, self.config.gap(episode.fps)
        for start in range(0, len(places), BATCH):
            frames, valid = window_frames(places[start : start + BATCH], self.config, gap, episode.length)
            window = features[frames].astype(np.float32, copy=False)
            images, states, mask = (torch.from_numpy(a).to(self.device) for a in (window, state[frames], valid))
            parts.append(self.read(images, words.expand(len(frames), -1), states, mask, at=self.config.now, heads=head_names))
        curves: dict[str, Curve] = {}
        for head in head_names:
            value, raw, stage = (
                torch.cat([part[f"{head}_{name}"] for part in parts]).cpu().numpy() for name in ("progress", "raw", "stage")
            )
            if len(places) < episode.length:
                value = interpolate(places, value, episode.length)
                raw, stage = (spread(each, places, episode.length) for each in (raw, stage))
            names = self.config.heads[head].names
            curves[head] = Curve(value, stage, names, {RAW: Signal(raw, "stages", 0.0, float(len(names)))})
        return Progress(episode.index, curves)

    @torch.no_grad()
    def compute_reward(self, batch: Mapping[str, Any]) -> Float[Tensor, "B"]:
        """Returns progress in [0, 1] of the current frame of each window, sparse head.

        `batch`: video_features (B, L, E) or (B, L, C, E), text_features (B, M) or (B, L, M), and if there are any state_features
        (B, L, S), normalised, and lengths (B,), how many frames of each window are real; without it the first 1 + n_obs_steps.
        """
        self.eval()
        images = batch["video_features"].to(self.device)
        images = images if images.ndim == 4 else images[:, :, None]
        size, length = images.shape[:2]
        lengths = batch.get("lengths", torch.full((size,), min(length, self.config.width))).to(self.device)
        valid = torch.arange(length, device=self.device) < lengths[:, None]
        state = batch.get("state_features", torch.zeros(size, length, 0)).to(self.device)[..., : self.config.max_state_dim]
        state = F.pad(state, (0, self.config.max_state_dim - state.shape[-1]))
        outputs = self.read(images, batch["text_features"].to(self.device), state, valid, at=self.config.now, heads=["sparse"])
        return outputs["sparse_progress"]

    def read(
        self,
        images: Float[Tensor, "B L C E"],
        text: Float[Tensor, "B M"] | Float[Tensor, "B L M"],
        state: Float[Tensor, "B L Z"],
        valid: Bool[Tensor, "B L"],
        *,
        at: int | None = None,
        heads: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the networks' outputs for these windows at place `at`, or (None) at every place, in which case shapes gain an L after B.

        `heads`: only these.

        Per head: {head}_logits and {head}_stage, its probabilities, (B, K); {head}_tau, within the likeliest stage, {head}_raw, the
        likeliest stage + tau, and {head}_progress, in [0, 1], (B,).
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._read((images, text, state, valid), at, list(self.config.heads if heads is None else heads))

    def _read(self, inputs: tuple[Tensor, ...], at: int | None, names: list[str]) -> dict[str, Tensor]:
        expected = self.config.decode == "expected"
        now, until_now = (slice(None), slice(None)) if at is None else (slice(at, at + 1), slice(at + 1))
        logits = self._stage_logits(inputs, names, now if expected else until_now)
        hypotheses = {head: each_stage(logit, inputs[3]) if expected else [one_hot(logit)] for head, logit in logits.items()}
        hidden_states = self.subtask_model(*inputs, stages=list(itertools.chain(*hypotheses.values())), places=now)
        out: dict[str, Tensor] = {}
        for head, states in zip(names, hidden_states.split([len(hypotheses[head]) for head in names], dim=1), strict=True):
            stages = self.config.heads[head]
            each = self.subtask_model.heads[head](states).squeeze(-1).float().sigmoid().movedim(1, -1)
            logit, each = (logits[head], each) if at is None else (logits[head][:, -1], each[:, 0])
            out |= {f"{head}_{name}": tensor for name, tensor in decode(logit, each, stages, expected=expected).items()}
        return out

    def _stage_logits(self, inputs: tuple[Tensor, ...], heads: Iterable[str], places: slice) -> dict[str, Float[Tensor, "B P K"]]:
        """Returns the stage network's logits. Where every head has one stage, it is not run and learns nothing: zeros."""
        if all(len(self.config.heads[head]) == 1 for head in heads):
            return {head: torch.zeros_like(inputs[3][:, places, None], dtype=torch.float32) for head in heads}
        (hidden,) = self.stage_model(*inputs, places=places).unbind(1)
        return {head: self.stage_model.heads[head](hidden).float() for head in heads}

    # While the robot moves

    def begin(self, *, fps: float, task: str = "", text: Float[np.ndarray, "M"] | None = None) -> History:
        """Returns a new attempt, as the base does. DataError also if the window is centred: it needs later frames."""
        if self.config.window != "causal":
            raise DataError("this model has a centred window: it looks at frames after now, so it can only label recorded episodes")
        return super().begin(fps=fps, task=task, text=text)

    def steps(self, attempts: Sequence[History], windows: Windows, words: Float[Tensor, "B M"]) -> list[Step]:
        """Returns progress in [0, 1] of the sparse head at these windows; signal "raw"."""
        images, states, valid = (torch.from_numpy(each).to(self.device) for each in windows)
        now = self.read(images, words, states, valid, at=self.config.now, heads=["sparse"])
        both = zip(now["sparse_progress"].tolist(), now["sparse_raw"].tolist(), strict=True)
        return [Step(progress, {RAW: raw}) for progress, raw in both]

    def use_state_stats(self, stats: StateStats) -> None:
        """Normalises robot states with these from now on; they and their source become part of the config."""
        self.config = checkpoint.with_state_stats(self.config, stats)

    def save_pretrained(self, folder: Path | str, *, format: Literal["milepost", "lerobot"] = "milepost") -> None:  # noqa: A002
        """Writes `config.json` and `model.safetensors`, each atomically.

        format="lerobot": as LeRobot 0.6.1 reads them (it normalises states with the dataset it labels, not with this model's statistics).
        DataError says why a model cannot be saved so.
        """
        if format not in ("milepost", "lerobot"):
            raise ValueError(f"format must be milepost or lerobot, got '{format}'")
        if format == "lerobot":
            return checkpoint.write_lerobot_folder(Path(folder), self.config, self.state_dict())
        return super().save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        device: str | torch.device = "cpu",
        *,
        state_stats: StateStats | Path | str | None = None,
        encoder: Encoder | Path | str | None = None,
        precision: Precision = "float32",
        config: SARMConfig | None = None,
    ) -> SARMModel:
        """Loads a saved model, ours or LeRobot's, from a folder or the Hub (`owner/name`, only if there is no such folder).

        state_stats: for LeRobot's if it has none: them, or a dataset folder to take them from. encoder: instead of the config's, which is
        loaded when first needed. precision: what encoder and networks compute in. config: instead of the saved one. DataError if a file is
        missing, broken or does not fit its config; it names the parameters.
        """
        folder = find_model(folder)
        saved, weights = checkpoint.read_folder(folder)
        config = saved if config is None else config
        model = cls.with_weights(folder, config, weights, precision)
        if state_stats is not None:
            stats = state_stats if isinstance(state_stats, StateStats) else checkpoint.read_state_stats(state_stats, config.state_key)
            model.use_state_stats(stats)
        if encoder is not None:
            if not isinstance(encoder, Encoder):
                encoder = load_encoder(str(encoder), device=str(device), precision=precision, text_width=config.text_dim)
            model.use_encoder(encoder)
        return model.to(require_device(device)).eval()

    def with_new_weights(self) -> SARMModel:
        """Returns another model of this config and precision, as it is made."""
        return SARMModel(self.config, self.precision)
