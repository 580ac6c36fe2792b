"""SARM: episode -> progress by stage and progress within the stage (arXiv 2509.25358).

    progress = sum_k p(stage k) (P_{k-1} + alpha_k tau_k)        decode="expected"
    progress = P_{k-1} + alpha_k tau_k, k the likeliest stage    decode="argmax", the paper's

The stage names, shares, state statistics and the encoder are part of the saved model: labelling another dataset never uses that
dataset's own. In a causal window nothing after a frame changes its progress, so `step` gives the same curve while the robot moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from milepost.embed import PixelEncoder, embed_text, reduce_cached, reduce_images
from milepost.hub import find_model, upload_model
from milepost.models.sarm.batches import look, pad_state
from milepost.models.sarm.checkpoint import (
    StateStats,
    misfits,
    read_folder,
    read_state_stats,
    with_state_stats,
    write_folder,
    write_lerobot_folder,
)
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.network import StreamTransformer
from milepost.models.sarm.online import History
from milepost.types import DataError, Episode, Progress


class SARMModel(nn.Module):
    """The two networks, the encoder and the config that made them. `cache`: a folder of one dataset's reduced frames, if set."""

    encoder: PixelEncoder
    """Only where `config.encoder` is "pixels"; any other is not part of the weights, and its features are given."""

    def __init__(self, config: SARMConfig) -> None:
        super().__init__()
        self.config = config
        self.cache: Path | None = None
        self._history: History | None = None
        heads = config.heads
        dims = {"image": config.image_dim, "text": config.text_dim, "state": config.max_state_dim, "hidden": config.hidden_dim}
        if config.encoder == "pixels":
            self.encoder = PixelEncoder(len(config.cameras), config.image_dim)
        self.stage_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs={head: len(stages) for head, stages in heads.items()},
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=False, attention=config.attention,
        )  # fmt: skip
        self.subtask_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs=dict.fromkeys(heads, 1),
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=True, attention=config.attention,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.stage_model.first_pos.device

    # What the encoder makes. Every way into the networks takes its features from one of these three.

    def features(self, episode: Episode) -> Float[np.ndarray, "T C E"]:
        """Image features of every frame of an episode, decoded once. DataError if the encoder is not part of this model."""
        self._has_encoder("predict_features(episode, features, text=...)")
        return self.encoder.project(reduce_cached(episode, self.config.cameras, self.cache))

    def frame_features(self, frames: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> Float[np.ndarray, "C E"]:
        """Image features of one moment, camera name -> image. DataError if a camera, or the encoder, is missing."""
        self._has_encoder("step(features, state)")
        missing = [camera for camera in self.config.cameras if camera not in frames]
        if missing:
            raise DataError(f"the model looks at camera '{missing[0]}', got: {', '.join(frames) or 'none'}")
        reduced = [reduce_images(frames[camera][None]) for camera in self.config.cameras]
        return self.encoder.project(np.stack(reduced, axis=1))[0]

    def text_features(self, task: str) -> Float[np.ndarray, "M"]:
        """Features of an instruction. DataError if the encoder is not part of this model."""
        self._has_encoder("text=..., the encoder's features of the instruction")
        return embed_text(task, self.config.text_dim)

    def _has_encoder(self, instead: str) -> None:
        if self.config.encoder != "pixels":
            raise DataError(f"this model sees through '{self.config.encoder}', which is not in its weights; give its features: {instead}")

    # Training

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> tuple[Tensor, dict[str, float]]:
        """Stage cross-entropy + within-stage squared error, over valid frames with a known label, summed over the heads.

        `batch` is `TrainingSet.sample`'s. `config.loss="lerobot"`: over all frames, an unknown label being stage 0, tau 0.
        Returns the scalar loss and its parts by name.
        """
        inputs = (batch["images"], batch["text"], batch["state"], batch["valid"])
        labels, told, losses = {}, [], {}
        said = self._stage_logits(inputs, self.config.heads, slice(None))
        for head, stages in self.config.heads.items():
            stage, tau = batch[f"{head}_stage"], batch[f"{head}_tau"]
            if self.config.loss == "lerobot":
                stage, tau = stage.clamp(min=0), tau.nan_to_num(0.0)
            logits = said[head]
            losses[f"{head}_stage_loss"] = F.cross_entropy(logits.flatten(0, 1), stage.flatten(), ignore_index=-1)
            told.append(self._told_stage(logits, stage, len(stages), generator))
            labels[head] = tau
        for (head, tau), inside in zip(labels.items(), self.subtask_model(*inputs, stages=told).unbind(1), strict=True):
            predicted = self.subtask_model.heads[head](inside).squeeze(-1).sigmoid()
            known = ~torch.isnan(tau)
            losses[f"{head}_tau_loss"] = F.mse_loss(predicted[known], tau[known]) if known.any() else predicted.sum() * 0
        total = torch.stack(list(losses.values())).sum()
        return total, {name: loss.item() for name, loss in {**losses, "loss": total}.items()}

    def _told_stage(self, logits: Tensor, stage: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
        """One-hot (B, L, K): the true stage for `gt_stage_ratio` of the samples, the predicted one for the rest and where unknown."""
        coins = 1 if self.config.loss == "lerobot" else len(stage)
        draw = torch.rand(coins, 1, generator=generator).to(stage.device)
        use_truth = (draw < self.config.gt_stage_ratio) & (stage >= 0)
        return F.one_hot(torch.where(use_truth, stage, logits.argmax(-1)), width).float()

    # Looking back at a recorded episode

    @torch.no_grad()
    def predict(self, episode: Episode, *, heads: Sequence[str] | None = None) -> Progress:
        """Progress of every frame by the sparse head, and by the dense head (`dense`) if there is one; raw = k + tau.

        `heads`: only these; the sparse one is always among them.
        """
        return self.predict_features(episode, self.features(episode), heads=heads)

    @torch.no_grad()
    def predict_features(
        self,
        episode: Episode,
        features: Float[np.ndarray, "T C E"],
        *,
        text: Float[np.ndarray, "M"] | None = None,
        heads: Sequence[str] | None = None,
        batch: int = 32,
    ) -> Progress:
        """`predict` from features already computed; the images are not read. `text`: those of the instruction, else computed here."""
        wanted = [head for head in self.config.heads if heads is None or head == "sparse" or head in heads]
        self.eval()
        state = pad_state(episode.state, self.config)
        words = torch.from_numpy(self.text_features(episode.task) if text is None else text).to(self.device)
        gap = self.config.gap(episode.fps)
        parts = []
        for start in range(0, episode.length, batch):
            at = np.arange(start, min(start + batch, episode.length))
            frames, valid = look(at, self.config, gap, episode.length)
            images, states, mask = (torch.from_numpy(a).to(self.device) for a in (features[frames], state[frames], valid))
            parts.append(self.read(images, words.expand(len(frames), -1), states, mask, at=self.config.now, heads=wanted))
        found: dict[str, Progress] = {}
        for head in reversed(wanted):  # the sparse curve last: it carries the dense one
            value, raw, stage = (
                torch.cat([part[f"{head}_{name}"] for part in parts]).cpu().numpy() for name in ("progress", "raw", "stage")
            )
            found[head] = Progress(episode.index, value, raw, stage, found.get("dense"))
        return found["sparse"]

    @torch.no_grad()
    def compute_reward(self, batch: Mapping[str, Any]) -> Float[Tensor, "B"]:
        """Progress in [0, 1] of the current frame of each window, sparse head.

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
        return self.read(images, batch["text_features"].to(self.device), state, valid, at=self.config.now, heads=["sparse"])[
            "sparse_progress"
        ]

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
        """What the networks say of these windows at place `at`, or (None) at every place, in which case shapes gain an L after B.

        `heads`: only these.

        Per head: {head}_logits and {head}_stage, its probabilities, (B, K); {head}_tau, within the likeliest stage, {head}_raw, the
        likeliest stage + tau, and {head}_progress, in [0, 1], (B,).
        """
        inputs = (images, text, state, valid)
        expected = self.config.decode == "expected"
        now, until_now = (slice(None), slice(None)) if at is None else (slice(at, at + 1), slice(at + 1))
        names = list(self.config.heads if heads is None else heads)
        logits = self._stage_logits(inputs, names, now if expected else until_now)
        told = {head: _each_stage(logit, valid) if expected else [_one_hot(logit)] for head, logit in logits.items()}
        inside = self.subtask_model(*inputs, stages=list(itertools.chain(*told.values())), places=now)
        out: dict[str, Tensor] = {}
        for head, states in zip(names, inside.split([len(told[head]) for head in names], dim=1), strict=True):
            stages = self.config.heads[head]
            starts = torch.tensor(stages.starts, dtype=torch.float32, device=images.device)
            shares = torch.tensor(stages.shares, dtype=torch.float32, device=images.device)
            each = self.subtask_model.heads[head](states).squeeze(-1).float().sigmoid().movedim(1, -1)
            logit, each = (logits[head], each) if at is None else (logits[head][:, -1], each[:, 0])
            probability = logit.softmax(-1)
            likeliest = probability.argmax(-1)
            tau = each.gather(-1, likeliest[..., None] if expected else torch.zeros_like(likeliest)[..., None]).squeeze(-1)
            value = (probability * (starts + shares * each)).sum(-1) if expected else starts[likeliest] + shares[likeliest] * tau
            found = {"logits": logit, "stage": probability, "tau": tau, "raw": likeliest + tau, "progress": value.clamp(0, 1)}
            out |= {f"{head}_{name}": tensor for name, tensor in found.items()}
        return out

    def _stage_logits(self, inputs: tuple[Tensor, ...], heads: Iterable[str], places: slice) -> dict[str, Float[Tensor, "B P K"]]:
        """What the stage network says. Where every head has one stage it has nothing to say, is not asked and learns nothing: zeros."""
        if all(len(self.config.heads[head]) == 1 for head in heads):
            return {head: torch.zeros_like(inputs[3][:, places, None], dtype=torch.float32) for head in heads}
        (seen,) = self.stage_model(*inputs, places=places).unbind(1)
        return {head: self.stage_model.heads[head](seen).float() for head in heads}

    # While the robot moves

    def reset(self, *, fps: float, task: str = "", text: Float[np.ndarray, "M"] | None = None) -> None:
        """A new attempt at `task` begins, its frames coming at `fps`. `text`: the instruction's features, else computed here.

        DataError if the window is centred: it would need frames that have not happened yet.
        """
        if self.config.window != "causal":
            raise DataError("this model has a centred window: it looks at frames after now, so it can only label recorded episodes")
        self.eval()
        words = self.text_features(task) if text is None else text
        self._history = History(self.config.n_obs_steps, self.config.gap(fps), words)

    @torch.no_grad()
    def step(
        self,
        frames: Mapping[str, UInt8[np.ndarray, "H W 3"]] | Float[np.ndarray, "C E"],
        state: Float[np.ndarray, "S"] | None = None,
    ) -> float:
        """Progress in [0, 1] at the next frame of the attempt: what `predict` will say of it, to rounding.

        `frames`: camera name -> image, or features. `state`: robot state, raw units. DataError before the first `reset`.
        """
        if self._history is None:
            raise DataError("call reset(task=..., fps=...) before the first step")
        self.eval()
        features = self.frame_features(frames) if isinstance(frames, Mapping) else frames
        raw = np.zeros((1, 0), dtype=np.float32) if state is None else state[None]
        self._history.push(features, pad_state(raw, self.config)[0])
        images, states, valid = (torch.from_numpy(a).to(self.device) for a in self._history.window())
        words = torch.from_numpy(self._history.text).to(self.device)[None]
        return self.read(images, words, states, valid, at=self.config.now, heads=["sparse"])["sparse_progress"].item()

    # On disk

    def use_state_stats(self, stats: StateStats) -> None:
        """Normalise robot states with these from now on; they and their source become part of the config."""
        self.config = with_state_stats(self.config, stats)

    def save_pretrained(
        self,
        folder: Path | str,
        *,
        format: Literal["milepost", "lerobot"] = "milepost",  # noqa: A002, the name users look for
    ) -> None:
        """`config.json` and `model.safetensors`, each written atomically.

        format="lerobot": as LeRobot 0.6.1 reads them (it normalises states with the dataset it labels, not with this model's statistics).
        DataError says why a model cannot be saved so.
        """
        if format == "lerobot":
            write_lerobot_folder(Path(folder), self.config, self.state_dict())
        else:
            write_folder(Path(folder), self.config.to_dict(), self.state_dict())

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, device: str | torch.device = "cpu", *, state_stats: StateStats | Path | str | None = None
    ) -> SARMModel:
        """Load a saved model, ours or LeRobot's, from a folder or the Hub (`owner/name`, only if there is no such folder).

        `state_stats`: for LeRobot's if it has none: them, or a dataset folder to take them from.
        DataError if a file is missing, broken or does not fit its config; it names the parameters.
        """
        folder = find_model(folder)
        config, weights = read_folder(folder)
        model = cls(config)
        wrong = misfits(model.state_dict(), weights)
        if wrong:
            raise DataError(f"the model in {folder} cannot be loaded, its weights do not fit its config: {'; '.join(wrong)}")
        model.load_state_dict(weights)
        if state_stats is not None:
            given = state_stats if isinstance(state_stats, StateStats) else read_state_stats(state_stats, config.state_key)
            model.use_state_stats(given)
        return model.to(device).eval()

    def push_to_hub(self, repo_id: str = "", *, private: bool = True) -> str:
        """Upload the saved model to the Hub repository `owner/name` and return its address; nothing else here ever uploads.

        DataError if no repository is named, or the Hub refuses.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload_model(Path(folder), repo_id, private=private)


def _one_hot(logits: Float[Tensor, "B P K"]) -> Float[Tensor, "B P K"]:
    """The likeliest stage of each place."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()


def _each_stage(logits: Float[Tensor, "B P K"], valid: Bool[Tensor, "B L"]) -> list[Float[Tensor, "B L K"]]:
    """K hypotheses: all of the window is in that stage."""
    return [one.expand(*valid.shape, -1) for one in torch.eye(logits.shape[-1], device=logits.device)]
