"""SARM: episode -> progress by stage and progress within the stage (arXiv 2509.25358).

    progress = sum_k p(stage k) (P_{k-1} + alpha_k tau_k)        decode="expected"
    progress = P_{k-1} + alpha_k tau_k, k the likeliest stage    decode="argmax", the paper's

The stage names, shares, state statistics and the encoder are part of the saved model: labelling another dataset never uses that
dataset's own. The window is causal: nothing after a frame changes its progress.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from milepost.embed import PixelEncoder, embed_text, reduce_cached
from milepost.models.sarm.batches import pad_state
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.network import StreamTransformer
from milepost.store import atomic_path, write_text
from milepost.types import DataError, Episode, Progress
from milepost.windows import causal, gap_frames


class SARMModel(nn.Module):
    """The two networks, the encoder and the config that made them. `cache`: a folder of one dataset's reduced frames, if set."""

    def __init__(self, config: SARMConfig) -> None:
        super().__init__()
        self.config = config
        self.cache: Path | None = None
        heads = config.heads
        dims = {"image": config.image_dim, "text": config.text_dim, "state": config.max_state_dim, "hidden": config.hidden_dim}
        self.encoder = PixelEncoder(len(config.cameras), config.image_dim)
        self.stage_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs={head: len(stages) for head, stages in heads.items()},
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=False,
        )  # fmt: skip
        self.subtask_model = StreamTransformer(
            dims=dims, cameras=len(config.cameras), outputs=dict.fromkeys(heads, 1),
            layers=config.num_layers, heads=config.num_heads, dropout=config.dropout, sees_stage=True,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.encoder.mean.device

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> tuple[Tensor, dict[str, float]]:
        """Stage cross-entropy + within-stage squared error, over valid frames with a known label, summed over the heads.

        `batch` is `TrainingSet.sample`'s. Returns the scalar loss and its parts by name.
        """
        inputs = (batch["images"], batch["text"], batch["state"], batch["valid"])
        seen = self.stage_model(*inputs)
        total = torch.zeros((), device=seen.device)
        parts: dict[str, float] = {}
        for head, stages in self.config.heads.items():
            stage, tau = batch[f"{head}_stage"], batch[f"{head}_tau"]
            logits = self.stage_model.heads[head](seen)
            stage_loss = F.cross_entropy(logits.flatten(0, 1), stage.flatten(), ignore_index=-1)
            told = self._told_stage(logits, stage, len(stages), generator)
            inside = self.subtask_model(*inputs, stage=told)
            predicted = self.subtask_model.heads[head](inside).squeeze(-1).sigmoid()
            known = ~torch.isnan(tau)
            tau_loss = F.mse_loss(predicted[known], tau[known]) if known.any() else predicted.sum() * 0
            total = total + stage_loss + tau_loss
            parts |= {f"{head}_stage_loss": stage_loss.item(), f"{head}_tau_loss": tau_loss.item()}
        return total, parts | {"loss": total.item()}

    def _told_stage(self, logits: Tensor, stage: Tensor, width: int, generator: torch.Generator | None) -> Tensor:
        """One-hot (B, L, K): the true stage for `gt_stage_ratio` of the samples, the predicted one for the rest and where unknown."""
        draw = torch.rand(len(stage), 1, generator=generator).to(stage.device)
        use_truth = (draw < self.config.gt_stage_ratio) & (stage >= 0)
        return F.one_hot(torch.where(use_truth, stage, logits.argmax(-1)), width).float()

    @torch.no_grad()
    def predict(self, episode: Episode) -> Progress:
        """Progress of every frame: value and dense (T,), raw = k + tau of the sparse head, stage (T, K) of the finest head."""
        return self.predict_features(episode, self.encoder.project(reduce_cached(episode, self.config.cameras, self.cache)))

    @torch.no_grad()
    def predict_features(self, episode: Episode, features: Float[np.ndarray, "T C E"], batch: int = 256) -> Progress:
        """`predict` from features already computed; the images are not read again."""
        self.eval()
        state = pad_state(episode.state, self.config)
        text = torch.from_numpy(embed_text(episode.task, self.config.text_dim)).to(self.device)
        gap = gap_frames(self.config.gap_s, episode.fps)
        parts = []
        for start in range(0, episode.length, batch):
            frames, valid = causal(np.arange(start, min(start + batch, episode.length)), self.config.n_obs_steps, gap)
            arrays = (torch.from_numpy(a).to(self.device) for a in (features[frames], state[frames], valid))
            images, states, mask = arrays
            parts.append(self._heads(images, text.expand(len(frames), -1), states, mask))
        joined = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        finest = "dense" if "dense" in self.config.heads else "sparse"
        dense = joined.get("dense_progress")
        return Progress(episode.index, joined["sparse_progress"], joined["sparse_raw"], joined[f"{finest}_stage"], dense)

    def _heads(self, images: Tensor, text: Tensor, state: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Of the last position of each window: {head}_stage (B, K), {head}_raw (B,), {head}_progress (B,)."""
        out = {}
        seen = self.stage_model(images, text, state, valid)[:, -1]
        for head, stages in self.config.heads.items():
            probability = self.stage_model.heads[head](seen).softmax(-1)
            told = torch.eye(len(stages), device=seen.device)[:, None, None].expand(-1, *valid.shape, -1)
            inside = [self.subtask_model(images, text, state, valid, stage=one)[:, -1] for one in told]
            tau = torch.cat([self.subtask_model.heads[head](i).sigmoid() for i in inside], dim=-1)
            starts = torch.tensor(stages.starts, dtype=torch.float32, device=seen.device)
            shares = torch.tensor(stages.shares, dtype=torch.float32, device=seen.device)
            reached = starts + shares * tau
            likeliest = probability.argmax(-1, keepdim=True)
            chosen = reached.gather(-1, likeliest).squeeze(-1)
            value = (probability * reached).sum(-1) if self.config.decode == "expected" else chosen
            out[f"{head}_stage"] = probability
            out[f"{head}_raw"] = (likeliest + tau.gather(-1, likeliest)).squeeze(-1)
            out[f"{head}_progress"] = value.clamp(0, 1)
        return out

    def save_pretrained(self, folder: Path | str) -> None:
        """`config.json` and `model.safetensors`, each written atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "model.safetensors") as temporary:
            temporary.write_bytes(safetensors.torch.save({k: v.cpu().contiguous() for k, v in self.state_dict().items()}))
        write_text(folder / "config.json", json.dumps(self.config.to_dict(), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str | torch.device = "cpu") -> SARMModel:
        """Load a saved model. DataError if a file is missing, broken or does not fit its config."""
        folder = Path(folder)
        try:
            config = SARMConfig.from_dict(json.loads((folder / "config.json").read_text()))
            weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
            model = cls(config)
            model.load_state_dict(weights)
        except FileNotFoundError as error:
            raise DataError(f"{folder} is not a saved model: {error.filename} is missing") from None
        except (json.JSONDecodeError, SafetensorError, RuntimeError) as error:
            raise DataError(f"the model in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        return model.to(device).eval()
