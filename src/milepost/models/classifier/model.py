"""LeRobot's reward classifier: episode -> the probability of success at every frame, from that frame's images alone.

A checkpoint of LeRobot 0.6.1 is read as it is and gives its numbers, on images that are normalised as in its training. It is there to be
compared; a success head (`models/success`) is what to train.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn

from milepost.core import Curve, DataError, Dataset, Episode, Progress, Signal, Step, Tick, read_json_object, require_cameras, warn_user
from milepost.datasets import find_model
from milepost.encoders import require_device
from milepost.models.classifier.network import ClassifierNetwork, Layout, make_network, own_names
from milepost.models.online import camera_image
from milepost.models.saved import hash_of, read_files, read_tensors, require_fit

BATCH = 32  # frames that go through the encoder at once
PREPROCESSOR = "classifier_preprocessor.json"
EPS = 1e-8  # LeRobot's, beside the standard deviation
Statistics = dict[str, tuple[Tensor, Tensor]]


class RewardClassifier(nn.Module):
    """The network and the statistics of the images that it was trained on: camera -> mean and standard deviation, (3, 1, 1) each."""

    success_threshold = 0.5
    """As LeRobot has it."""

    def __init__(self, network: ClassifierNetwork, statistics: Statistics) -> None:
        super().__init__()
        self.network, self.statistics = network.eval().requires_grad_(False), statistics
        self._begun = False

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.network.layout.cameras

    def identity(self) -> dict[str, Any]:
        """Returns what its curves depend on beside its weights: the encoder, the cameras, the statistics of the images."""
        numbers = {camera: [each.flatten().tolist() for each in both] for camera, both in self.statistics.items()}
        return {"type": "reward_classifier", "encoder": self.network.layout.encoder, "statistics": numbers}

    def weights_hash(self) -> str:
        """Returns the SHA-256 of all parameters and buffers with their names."""
        return hash_of(self.state_dict())

    def prepare_for(self, dataset: Dataset, *, cache: Path | None = None, on_frames: Tick | None = None) -> None:
        """Looks for the cameras; nothing else is prepared. DataError if one is not there."""
        require_cameras(self.cameras, dataset.cameras, hint=f"the model looks at {', '.join(self.cameras)}")

    @property
    def is_for_one_dataset(self) -> bool:
        """Returns False: nothing is taken from a dataset."""
        return False

    @torch.no_grad()
    def probability(self, images: Mapping[str, UInt8[np.ndarray, "B H W 3"]]) -> Float[np.ndarray, "B"]:
        """Returns the probability of success of some frames. images: by camera."""
        device = next(self.network.parameters()).device
        parts = []
        for camera in self.cameras:
            mean, std = (each.to(device) for each in self.statistics[camera])
            pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images[camera], -1, 1))).to(device).float() / 255
            parts.append((pixels - mean) / (std + EPS))
        return self.network(parts).sigmoid().cpu().numpy()

    def predict(self, episode: Episode) -> Progress:
        """Returns the probability of success at every frame as the curve, and as the signal "success"."""
        starts = range(0, episode.length, BATCH)
        frames = [np.arange(start, min(start + BATCH, episode.length)) for start in starts]
        value = np.concatenate([self.probability({camera: episode.camera(camera)[each] for camera in self.cameras}) for each in frames])
        return Progress(episode.index, Curve(value, signals={"success": Signal(value, "", 0.0, 1.0)}, score="success"))

    def reset(self, *, fps: float, task: str = "") -> None:
        """Begins a new attempt; the model knows no task and no time."""
        self._begun = True

    def hold(self, frames: int) -> None:
        """Says that so many frames never came, which makes no difference here."""

    def snapshot(self) -> None:
        """Returns nothing: the model remembers nothing of an attempt."""

    def restore(self, snapshot: None) -> None:
        """Changes nothing."""

    def step(self, frames: Mapping[str, Shaped[np.ndarray, "..."]], state: Float[np.ndarray, "S"] | None = None) -> Step:
        """Returns the probability at the next frame, as `predict` does. frames: camera name -> image, (H, W, 3) or (3, H, W).

        DataError before the first `reset`, and for an image that does not fit.
        """
        if not self._begun:
            raise DataError("reset(task=..., fps=...) begins an attempt; call it before step")
        require_cameras(self.cameras, frames, whose="this frame has")
        value = float(self.probability({camera: camera_image(frames[camera], camera)[None] for camera in self.cameras})[0])
        return Step(value, {"success": value})

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str | torch.device = "cpu") -> RewardClassifier:
        """Loads a folder that LeRobot wrote, or one from the Hub, and warns of what is known of such a model.

        DataError names the file that is missing, broken or not read here.
        """
        folder = find_model(folder)
        values, weights = read_files(folder)
        layout = Layout.read(folder / "config.json", values)
        statistics = _statistics(folder, layout)
        network = make_network(folder / "config.json", layout)
        own = own_names(folder / "model.safetensors", weights)
        require_fit(folder, network.state_dict(), own)
        network.load_state_dict(own)
        if layout.is_convolutional:
            warn_user(
                f"{folder} is LeRobot's reward classifier: in LeRobot 0.6.1 its spatial pooling and its projection get no gradient, so "
                "they are as they were drawn; a success head is better: milepost train DATASET --model success --output-dir FOLDER"
            )
        return cls(network.to(require_device(device)), statistics)


def _statistics(folder: Path, layout: Layout) -> Statistics:
    """Returns the statistics that LeRobot normalised the images with. DataError if a file lacks them."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        raise DataError(f"{path} is missing: without it nobody knows how the images were normalised; LeRobot writes it beside the weights")
    steps = read_json_object(path, what="preprocessor").get("steps")
    names = [step.get("state_file") for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    tensors: dict[str, Tensor] = {}
    for name in filter(None, names):
        tensors |= {
            key: tensor for key, tensor in read_tensors(folder / Path(str(name)).name).items() if key.startswith("observation.image")
        }
    keys = [f"{camera}.{which}" for camera in layout.cameras for which in ("mean", "std")]
    if missing := [key for key in keys if key not in tensors or tensors[key].numel() != 3]:
        raise DataError(f"{path} and its files have no three numbers for {', '.join(missing)}")
    return {camera: tuple(tensors[f"{camera}.{which}"].float().reshape(3, 1, 1) for which in ("mean", "std")) for camera in layout.cameras}  # type: ignore[misc]
