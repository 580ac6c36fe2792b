"""A tiny reward classifier in the files that LeRobot 0.6.1 writes, and what it says by its source's order of layers, written anew."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from milepost.testing import CAMERA

SIDE = 32
"""Height and width of the images of `milepost.testing`'s dots."""
POOLING, LATENT, HIDDEN = 3, 7, 6


class Reference:
    """The classifier, layer by layer. transformer: with a ViT instead of a ResNet; cameras: dataset keys."""

    def __init__(self, *, transformer: bool = False, cameras: tuple[str, ...] = (CAMERA,)) -> None:
        torch.manual_seed(0)
        self.cameras, self.transformer = cameras, transformer
        if transformer:
            vit = ViTConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=SIDE, patch_size=8)
            self.encoder: nn.Module = ViTModel(vit)
        else:
            self.encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
        self.encoder.eval()
        self.parts = {
            camera: (nn.Parameter(torch.randn(16, 4, 4, POOLING)), nn.Linear(16 * POOLING, LATENT), nn.LayerNorm(LATENT))
            for camera in cameras
        }
        width = 12 if transformer else LATENT
        self.head = nn.Sequential(
            nn.Linear(width * len(cameras), HIDDEN), nn.Dropout(0.1), nn.LayerNorm(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )
        self.head.eval()
        self.mean, self.std = torch.tensor([0.3, 0.4, 0.5]).reshape(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).reshape(3, 1, 1)

    @torch.no_grad()
    def probability(self, images: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the probability of frames (B, H, W, 3), uint8, by camera."""
        parts = []
        for camera in self.cameras:
            pixels = (torch.from_numpy(images[camera]).permute(0, 3, 1, 2).float() / 255 - self.mean) / (self.std + 1e-8)
            output = self.encoder(pixels).last_hidden_state
            if self.transformer:
                parts.append(output[:, 0])
                continue
            kernel, linear, norm = self.parts[camera]
            pooled = (output.unsqueeze(-1) * kernel.unsqueeze(0)).sum(dim=(2, 3)).reshape(len(output), -1)
            parts.append(torch.tanh(norm(linear(pooled))))
        return self.head(torch.hstack(parts)).squeeze(-1).sigmoid().numpy()

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights under LeRobot's names; the encoder that the cameras share is written under the first of its names."""
        first = "encoder." if self.transformer else f"encoders.{self.cameras[0].replace('.', '_')}.0."
        named = {first + name: weight for name, weight in self.encoder.state_dict().items()}
        for camera, (kernel, linear, norm) in self.parts.items() if not self.transformer else ():
            start = f"encoders.{camera.replace('.', '_')}"
            named |= {
                f"{start}.1.kernel": kernel.detach(),
                f"{start}.3.weight": linear.weight.detach(),
                f"{start}.3.bias": linear.bias.detach(),
            }
            named |= {f"{start}.4.weight": norm.weight.detach(), f"{start}.4.bias": norm.bias.detach()}
        return {**named, **{f"classifier_head.{name}": weight for name, weight in self.head.state_dict().items()}}

    def write(self, folder: Path, **changes: object) -> Path:
        """Writes config.json, model.safetensors and the preprocessor. changes: of config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.config.save_pretrained(folder / "encoder")
        features = {camera: {"type": "VISUAL", "shape": [3, SIDE, SIDE]} for camera in self.cameras}
        config = {
            "type": "reward_classifier", "num_classes": 2, "hidden_dim": HIDDEN, "latent_dim": LATENT,
            "image_embedding_pooling_dim": POOLING,
            "model_name": str(folder / "encoder"), "model_type": "transformer" if self.transformer else "cnn",
            "num_cameras": len(self.cameras), "input_features": features, "output_features": {}, **changes,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        save_file(self.weights(), folder / "model.safetensors")
        state = "classifier_preprocessor_step_0_normalizer_processor.safetensors"
        steps = [
            {"registry_name": "normalizer_processor", "config": {}, "state_file": state},
            {"registry_name": "device_processor", "config": {}},
        ]
        (folder / "classifier_preprocessor.json").write_text(json.dumps({"name": "classifier_preprocessor", "steps": steps}))
        statistics = {
            f"{camera}.{name}": each.clone() for camera in self.cameras for name, each in (("mean", self.mean), ("std", self.std))
        }
        save_file(statistics, folder / state)
        return folder
