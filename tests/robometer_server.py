"""A Robometer behind `chat_server`'s `/pooling`: images decoded, the chat template rendered and the forward run by transformers alone."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers
from safetensors.torch import load_file

HEADS = ("progress_head", "success_head", "preference_head", "frame_pool_attn")
IMAGE = "<|image_pad|>"


class PooledRobometer:
    """A checkpoint in the published layout. Its answer has a row for each mark, or (every_token) one for each token of the prompt."""

    def __init__(self, folder: Path, *, every_token: bool = False) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.network = transformers.Qwen3VLModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.weights = load_file(folder / "model.safetensors")
        self.every_token = every_token
        self._lock = threading.Lock()  # transformers keeps rope_deltas in the module

    def __call__(self, body: dict[str, Any]) -> tuple[list[list[float]], int]:
        assert body["task"] == "token_classify"
        assert body["use_activation"] is False
        assert body["mm_processor_kwargs"] == {"do_resize": False}
        [turn] = body["messages"]
        images: list[np.ndarray] = []
        content = []
        for part in turn["content"]:
            if part["type"] == "text":
                content.append(part)
                continue
            head, _, encoded = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            with PIL.Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
                images.append(np.asarray(image.convert("RGB")))
            content.append({"type": "image"})
        turns = [{"role": turn["role"], "content": content}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False, **body["chat_template_kwargs"])
        with self._lock:
            return self.forward(text, images)

    @torch.inference_mode()
    def forward(self, text: str, images: list[np.ndarray]) -> tuple[list[list[float]], int]:
        """(rows, tokens of the prompt)."""
        pieces = text.split(IMAGE)
        assert len(pieces) == len(images) + 1
        pixels, grids = [], []
        for number, image in enumerate(images):
            rows, columns = image.shape[0] // 16, image.shape[1] // 16
            pieces[number] += IMAGE * (rows * columns // 4)
            grids.append([1, rows, columns])
            patches = ((image / 255.0 - 0.5) / 0.5).reshape(rows // 2, 2, 16, columns // 2, 2, 16, 3).transpose(0, 3, 1, 4, 6, 2, 5)
            pixels.append(np.stack([patches, patches], axis=5).reshape(rows * columns, -1))  # an image fills a group of two frames
        ids = torch.tensor([self.tokenizer.encode("".join(pieces), add_special_tokens=False)])
        hidden = self.network(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == self.network.config.image_token_id).int(),
            pixel_values=torch.tensor(np.concatenate(pixels), dtype=torch.float32),
            image_grid_thw=torch.tensor(grids),
        ).last_hidden_state[0]
        if not self.every_token:
            hidden = hidden[ids[0] == self.tokenizer.convert_tokens_to_ids("<|prog_token|>")]
        return torch.cat([self.head(name, hidden) for name in HEADS], 1).tolist(), ids.shape[1]

    def head(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """Outputs of a head."""
        if f"{name}.weight" in self.weights:
            return hidden @ self.weights[f"{name}.weight"].T
        w = {part: self.weights[f"{name}.{part}"] for part in ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")}
        inner = torch.nn.functional.linear(hidden, w["0.weight"], w["0.bias"])
        inner = torch.nn.functional.layer_norm(inner, inner.shape[-1:], w["1.weight"], w["1.bias"])
        return torch.nn.functional.linear(torch.nn.functional.gelu(inner), w["4.weight"], w["4.bias"])
