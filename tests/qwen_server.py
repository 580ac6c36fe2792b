"""A Qwen3-VL behind `chat_server`: images decoded, its chat template rendered by transformers, the true log-probability of every token.

The forward is transformers' own and reads images, each shown twice in one group, as Qwen's processor does. Of ours it uses
`FrameProcessor`.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch

from milepost.vlm.patches import FrameProcessor, Resolution

IMAGE = "<|image_pad|>"


class QwenModel:
    """ignored: fields of a request this server does not know. raw: it names tokens as its vocabulary does, not as text."""

    def __init__(self, model: Any, tokenizer: Any, processor: FrameProcessor, *, ignored: tuple[str, ...] = (), raw: bool = False) -> None:
        self.model, self.tokenizer, self.processor, self.ignored = model, tokenizer, processor, ignored
        ids = range(model.config.text_config.vocab_size)
        self.names = tokenizer.convert_ids_to_tokens(list(ids)) if raw else [tokenizer.decode([each]) for each in ids]
        self._lock = threading.Lock()  # transformers keeps rope_deltas in the module
        self.seen: list[list[int]] = []
        """The ids of every prompt, as they came."""

    def answer(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
        text, images = self.rendered(body)
        with self._lock:
            ids, logprobs = self.forward(text, images)
            self.seen.append(ids)
        return list(zip(self.names, logprobs.tolist(), strict=True)), len(ids)

    def rendered(self, body: Mapping[str, Any]) -> tuple[str, list[np.ndarray]]:
        images: list[np.ndarray] = []
        turns = [{**turn, "content": self._content(turn["content"], images)} for turn in body["messages"]]
        known = {name: value for name, value in body.items() if name not in self.ignored}
        open_turn = known.get("continue_final_message", False)
        prompt = known.get("add_generation_prompt", True)
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, continue_final_message=open_turn)
        return text, images

    def _content(self, content: str | list[dict[str, Any]], images: list[np.ndarray]) -> str | list[dict[str, Any]]:
        if isinstance(content, str):
            return content
        found: list[dict[str, Any]] = []
        for part in content:
            if part["type"] == "text":
                found.append(part)
                continue
            with PIL.Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1]))) as image:
                images.append(np.asarray(image.convert("RGB")))
            found.append({"type": "image"})
        return found

    @torch.inference_mode()
    def forward(self, text: str, images: list[np.ndarray]) -> tuple[list[int], torch.Tensor]:
        """(ids of the prompt, log-probability of every token as the next)."""
        pieces = text.split(IMAGE)
        assert len(pieces) == len(images) + 1
        rows, grids = [], []
        for number, image in enumerate(images):
            size = image.shape[:2]
            assert self.processor.size(Resolution(size=size), frames=2, height=size[0], width=size[1]) == size  # whole tokens
            rows.append(self.processor.rows(np.stack([image, image]), size))
            grids.append([1, *self.processor.grid(size)])
            pieces[number] += IMAGE * self.processor.tokens(size)
        ids = self.tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([ids])
        pixels = {"pixel_values": torch.cat(rows), "image_grid_thw": torch.tensor(grids)} if images else {}
        output = self.model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            mm_token_type_ids=(tokens == self.model.config.image_token_id).int(),
            use_cache=False,
            **pixels,
        )
        return ids, output.logits[0, -1].float().log_softmax(-1)
