"""A small action-chunking policy to measure the effect of weights on behaviour cloning: an observation in, the next H actions out.

    loss="l1":   |a_hat(o) - a|                                   the median of what was shown
    loss="flow": |v(o, (1 - t) z + t a, t) - (a - z)|^2           z noise, t uniform; acting integrates v from t = 0 to 1

Both give one loss a sample (B,), averaged over the actions of its chunk that are inside the episode; `weighted_mean` (RA-BC, eq. 7) does
the rest. It knows no simulator and no pixels: an observation is any row of numbers, image features of a frozen encoder included.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from milepost.core import DataError, atomic_path, read_json, require_plain_file, write_text
from milepost.sim.compare.config import PolicyConfig
from milepost.weights import weighted_mean

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """What to imitate, frame by frame, episodes end to end: observation (N, O) and action (N, A) float32, episode_index (N,)."""

    observation: Float[np.ndarray, "N O"]
    action: Float[np.ndarray, "N A"]
    episode_index: Int[np.ndarray, "N"]

    def __post_init__(self) -> None:
        rows = {len(self.observation), len(self.action), len(self.episode_index)}
        if len(rows) > 1 or not len(self.action):
            raise DataError(f"demonstrations need as many observations as actions and episode numbers, at least one, got {sorted(rows)}")
        if not (np.isfinite(self.observation).all() and np.isfinite(self.action).all()):
            raise DataError("observations and actions must be finite; leave the episodes with NaN or infinite numbers out")
        starts = self.episode_index[np.flatnonzero(np.diff(self.episode_index, prepend=self.episode_index[0] - 1))]
        if len(np.unique(starts)) < len(starts):
            raise DataError("the rows of an episode must stand together, in order")

    def chunks(self, size: int) -> tuple[Float[np.ndarray, "N H A"], Bool[np.ndarray, "N H"]]:
        """Returns the next `size` actions of every row, and which of them are inside its episode; after the end the last action is
        repeated."""
        rows = np.arange(len(self.action))
        boundaries = np.flatnonzero(np.diff(self.episode_index, append=self.episode_index[-1] + 1))
        last = boundaries[np.searchsorted(boundaries, rows)]
        ahead = rows[:, None] + np.arange(size)
        return self.action[np.minimum(ahead, last[:, None])], ahead <= last[:, None]


class ChunkPolicy(nn.Module):
    """A multilayer perceptron; normalises observations itself, with the statistics of the samples that weigh anything."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: PolicyConfig, observation_dim: int, action_dim: int) -> None:
        super().__init__()
        self.config, self.observation_dim, self.action_dim = config, observation_dim, action_dim
        out = config.chunk_size * action_dim
        wide = observation_dim + (out + 1 if config.loss == "flow" else 0)
        layers: list[nn.Module] = []
        for _ in range(config.num_layers):
            layers += [nn.Linear(wide, config.hidden_dim), nn.GELU() if config.loss == "flow" else nn.ReLU()]
            wide = config.hidden_dim
        self.network = nn.Sequential(*layers, nn.Linear(wide, out))
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("std", torch.ones(observation_dim))

    def normalise(self, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        return ((observation - self.mean) / self.std).clamp(-10, 10)

    def loss(
        self, observation: Float[Tensor, "B O"], chunk: Float[Tensor, "B H A"], valid: Bool[Tensor, "B H"], generator: torch.Generator
    ) -> Float[Tensor, "B"]:
        """Computes one loss per sample, the mean over its valid actions. generator: draws the flow's noise and times."""
        normalised = self.normalise(observation)
        if self.config.loss == "l1":
            gap = (self.network(normalised).view_as(chunk) - chunk).abs()
        else:
            noise = torch.randn(chunk.shape, generator=generator)
            time = torch.rand(len(chunk), 1, generator=generator)
            between = noise + time[:, :, None] * (chunk - noise)
            velocity = self.network(torch.cat([normalised, between.flatten(1), time], dim=1)).view_as(chunk)
            gap = (velocity - (chunk - noise)).square()
        return (gap.mean(2) * valid).sum(1) / valid.sum(1).clamp(min=1)

    @torch.no_grad()
    def act(self, observation: Float[np.ndarray, "O"], generator: torch.Generator | None = None) -> Float[np.ndarray, "H A"]:
        """Computes the next H actions, in their own units. generator: draws the flow's noise; "l1" does not need it."""
        normalised = self.normalise(torch.from_numpy(np.asarray(observation, np.float32))[None])
        shape = (self.config.chunk_size, self.action_dim)
        if self.config.loss == "l1":
            return self.network(normalised)[0].view(shape).numpy()
        action = torch.randn(1, shape[0] * shape[1], generator=generator)
        for step in range(self.config.flow_steps):
            time = torch.full((1, 1), step / self.config.flow_steps)
            action = action + self.network(torch.cat([normalised, action, time], dim=1)) / self.config.flow_steps
        return action[0].view(shape).numpy()

    def actor(self, rng: np.random.Generator) -> Callable[[Float[np.ndarray, "O"]], Float[np.ndarray, "H A"]]:
        """Returns `act` with noise from `rng`, for a closed loop."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return lambda observation: self.act(observation, generator)

    def save_pretrained(self, folder: Path) -> None:
        """Writes `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"observation_dim": self.observation_dim, "action_dim": self.action_dim}
        with atomic_path(folder / WEIGHTS) as temporary:
            safetensors.torch.save_file(self.state_dict(), temporary)
        write_text(
            folder / CONFIG, json.dumps({"type": "chunk_policy", **sizes, **dataclasses.asdict(self.config)}, indent=2, allow_nan=False)
        )

    @classmethod
    def from_pretrained(cls, folder: Path) -> ChunkPolicy:
        """Reads a policy. DataError if the folder does not have one."""
        try:
            if not (folder / CONFIG).exists():
                raise FileNotFoundError(f"{folder / CONFIG} is missing")
            values = read_json(folder / CONFIG, what="policy config")
            if values.pop("type", None) != "chunk_policy":
                raise DataError(f"{folder / CONFIG} is not of a policy made here (type 'chunk_policy')")
            policy = cls(observation_dim=values.pop("observation_dim"), action_dim=values.pop("action_dim"), config=PolicyConfig(**values))
            require_plain_file(folder / WEIGHTS, what="weights")
            policy.load_state_dict(safetensors.torch.load((folder / WEIGHTS).read_bytes()))
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise DataError(f"no policy can be loaded from {folder}: {error}") from error
        return policy.eval()


def fit_policy(
    demonstrations: Demonstrations,
    config: PolicyConfig,
    *,
    rng: np.random.Generator,
    weight: Float[np.ndarray, "N"] | None = None,
) -> ChunkPolicy:
    """Trains by behaviour cloning; with `weight` (N,) of at least 0, the loss is weighted (RA-BC). Equal rng, equal floats.

    A sample of weight 0 has no influence, neither on gradients nor on the normalisation. DataError if the weights do not fit or all are 0.
    """
    rows = len(demonstrations.action)
    weight = np.ones(rows, np.float32) if weight is None else np.asarray(weight, np.float32)
    if weight.shape != (rows,) or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
        raise DataError(
            f"weights must be ({rows},), finite, at least 0 and not all 0, got {weight.shape} from {weight.min()} to {weight.max()}"
        )
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    policy = _untrained(config, demonstrations, weight, generator)
    chunk, valid = (torch.from_numpy(array) for array in demonstrations.chunks(config.chunk_size))
    observation, weight_N = torch.from_numpy(demonstrations.observation), torch.from_numpy(weight)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    for _ in range(config.steps):
        if config.draw == "weight":
            places = torch.multinomial(weight_N, config.batch_size, replacement=True, generator=generator)
        else:
            places = torch.randint(rows, (config.batch_size,), generator=generator)
        loss_B = policy.loss(observation[places], chunk[places], valid[places], generator)
        loss = loss_B.mean() if config.draw == "weight" else weighted_mean(loss_B, weight_N[places])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return policy.eval()


def _untrained(config: PolicyConfig, demonstrations: Demonstrations, weight: np.ndarray, generator: torch.Generator) -> ChunkPolicy:
    """Returns an untrained policy, drawn from the generator, with the statistics of all samples of weight above 0."""
    observations = demonstrations.observation[weight > 0]
    policy = ChunkPolicy(config, observations.shape[1], demonstrations.action.shape[1])
    for layer in policy.network:
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
    policy.mean.copy_(torch.from_numpy(observations.mean(axis=0)))
    std = observations.std(axis=0)
    policy.std.copy_(torch.from_numpy(np.where(std > 1e-5, std, 1.0).astype(np.float32)))
    return policy
