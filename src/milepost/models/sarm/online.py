"""The past a causal window needs, one frame at a time: the episode's first frame and a ring of the latest ones. Memory does not grow.

It uses `windows.causal`, the index array of the offline curve, so both see the same frames.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from milepost.windows import causal


class History:
    """Features (C, E) and state (Z,) of frame 0 and of the last (n_obs_steps - 1) * gap + 1 frames."""

    def __init__(self, n_obs_steps: int, gap: int, text: Float[np.ndarray, "M"]) -> None:
        self.n_obs_steps, self.gap, self.text = n_obs_steps, gap, text
        self.count = 0
        self.size = (n_obs_steps - 1) * gap + 1
        self.features: Float[np.ndarray, "N C E"] = np.zeros((0, 0, 0), dtype=np.float32)
        self.state: Float[np.ndarray, "N Z"] = np.zeros((0, 0), dtype=np.float32)

    def push(self, features: Float[np.ndarray, "C E"], state: Float[np.ndarray, "Z"]) -> None:
        """The next frame. ValueError if it has another shape than the first."""
        if not self.count:  # slot 0 keeps frame 0 for good, the ring follows it
            self.features = np.zeros((1 + self.size, *features.shape), dtype=np.float32)
            self.state = np.zeros((1 + self.size, *state.shape), dtype=np.float32)
            self.features[0], self.state[0] = features, state
        slot = 1 + self.count % self.size
        if features.shape != self.features.shape[1:]:
            raise ValueError(f"frame {self.count} has features {features.shape}, the first had {self.features.shape[1:]}")
        self.features[slot], self.state[slot] = features, state
        self.count += 1

    def window(self) -> tuple[Float[np.ndarray, "1 L C E"], Float[np.ndarray, "1 L Z"], Bool[np.ndarray, "1 L"]]:
        """What the model sees at the frame pushed last: features, state, valid."""
        frames, valid = causal(np.array([self.count - 1]), self.n_obs_steps, self.gap)
        slots = np.where(frames == 0, 0, 1 + frames % self.size)
        return self.features[slots], self.state[slots], valid
