"""CLIP- and SigLIP-type models as encoders, through transformers, which is imported only when one is loaded.

Features are the output of the model's own projection, not scaled to unit length. The code of a model folder is never run, and a checkpoint
that lacks weights is refused. Images are resized by `resize.py` rather than by PIL, which moves features by hundredths of their standard
deviation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from milepost.core import DataError, load, warn_user
from milepost.encoders.resize import Preprocessing

Precision = Literal["float32", "bfloat16", "float16"]
_PASSING = {"transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures"}
_REMEMBERED = 10_000


class ClipEncoder:
    """A frozen model with an image and a text tower. `load` makes one by name; see `encoders.Encoder` for what it offers."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        preprocessing: Preprocessing,
        label: str = "clip",
        device: str = "cpu",
        precision: Precision = "float32",
        batch: int | None = None,
    ) -> None:
        """Takes a model with `get_image_features` and `get_text_features`. label: begins the name. batch: 32 on a CPU, 256 elsewhere."""
        self.device = torch.device(device)
        self.precision = precision
        self.batch = batch or (32 if self.device.type == "cpu" else 256)
        digest = _digest(model)
        self.name = f"{label}-{digest}" + ("" if precision == "float32" else f"-{precision}")
        self.fingerprint = f"{digest}-{hashlib.sha256(preprocessing.key.encode()).hexdigest()[:8]}"
        self._images = preprocessing
        self._tokenizer = tokenizer
        self._model: Any = model.requires_grad_(False).float().eval().to(self.device)
        self._texts: dict[str, np.ndarray] = {}

    @classmethod
    def load(
        cls, name_or_folder: str, *, revision: str | None = None, device: str = "cpu", precision: Precision = "float32"
    ) -> ClipEncoder:
        """Returns any CLIP- or SigLIP-type model with weights, tokenizer and preprocessor_config.json, from a folder or the Hub.

        precision: what the image network computes in (autocast); text is always float32. DataError if transformers is not installed, if
        there is no such model, if it has no image or no text tower, if weights are missing, or if its preprocessing is not supported.
        """
        folder = Path(name_or_folder).expanduser()
        if not folder.is_dir() and name_or_folder.startswith(("/", ".", "~")):
            raise DataError(f"there is no encoder in {folder}: no such folder")
        source = str(folder) if folder.is_dir() else name_or_folder
        where = {"pretrained_model_name_or_path": source, "revision": revision, "trust_remote_code": False}
        try:
            model, tokenizer, config = _load(where)
            preprocessing = Preprocessing.from_config(config)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"the encoder '{name_or_folder}' cannot be loaded: {reason}; --encoder (encoder=...) takes another name, or a folder"
            ) from error
        return cls(model, tokenizer, preprocessing=preprocessing, label=folder.resolve().name, device=device, precision=precision)

    @property
    def preprocessing(self) -> str:
        return self._images.key

    @cached_property
    def width(self) -> int:
        """Returns E, from encoding one black image: every family of models writes it elsewhere in its config."""
        return self.images(np.zeros((1, 8, 8, 3), np.uint8)).shape[1]

    @cached_property
    def text_width(self) -> int:
        return self.text([""]).shape[1]

    def prepare(self, images: UInt8[np.ndarray, "N H W 3"]) -> UInt8[Tensor, "N 3 h w"]:
        """Returns the images resized and cropped, on the CPU."""
        return self._images.images(images)

    @torch.inference_mode()
    def encode(self, prepared: UInt8[Tensor, "N 3 h w"]) -> Float[np.ndarray, "N E"]:
        """Returns float32 features. DataError if the network gives NaN or infinite numbers."""
        pixels = self._images.normalise(prepared.to(self.device))
        half = getattr(torch, self.precision)
        with torch.autocast(self.device.type, half, enabled=self.precision != "float32"):
            features = _pooled(self._model.get_image_features(pixel_values=pixels)).float().cpu().numpy()
        if not np.isfinite(features).all():
            raise DataError(
                f"the encoder {self.name} gives NaN or infinite features; its weights are broken or {self.precision} is too coarse"
            )
        return features

    def images(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N E"]:
        """Returns the features of images of one size, `batch` at a time."""
        starts = range(0, len(images), self.batch)
        return np.concatenate([self.encode(self.prepare(images[i : i + self.batch])) for i in starts])

    def text(self, sentences: Sequence[str]) -> Float[np.ndarray, "N M"]:
        """Returns the features of sentences; each is encoded once and cached. Warns of a sentence that is longer than the model reads."""
        return np.stack([self._sentence(sentence) for sentence in sentences])

    def _sentence(self, sentence: str) -> Float[np.ndarray, "M"]:
        if sentence not in self._texts:
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            self._texts[sentence] = self._encode_sentence(sentence)
        return self._texts[sentence]

    @torch.inference_mode()
    def _encode_sentence(self, sentence: str) -> Float[np.ndarray, "M"]:
        """Returns the features of one sentence alone, at full length. In a batch the last digits would depend on its neighbours, and a
        resumed training run would drift.
        """
        config = self._model.config
        length = min(config.text_config.max_position_embeddings, self._tokenizer.model_max_length)
        tokens = self._tokenizer([sentence], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        if any(each.overflowing for each in tokens.encodings or ()):
            warn_user(f"the encoder {self.name} reads the first {length} tokens of '{sentence[:60]}...' and no more", UserWarning)
        inputs = {"input_ids": tokens["input_ids"].to(self.device)}
        if "attention_mask" in tokens and not config.model_type.startswith("siglip"):  # SigLIP was trained to look at its padding
            inputs["attention_mask"] = tokens["attention_mask"].to(self.device)
        return _pooled(self._model.get_text_features(**inputs))[0].float().cpu().numpy()


def _load(where: dict[str, Any]) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Returns (model, tokenizer, contents of preprocessor_config.json)."""
    transformers = load("transformers", purpose="CLIP and SigLIP encoders", install="milepost[clip]")
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.from_pretrained(**where)
    if not hasattr(config, "text_config") or not hasattr(getattr(config, "vision_config", None), "image_size"):
        raise DataError(f"a '{config.model_type}' model is not of the CLIP or SigLIP type, with one fixed image size and a text tower")
    model, info = transformers.AutoModel.from_pretrained(**where, config=config, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise DataError(f"its weights are incomplete, {len(missing)} are missing: {', '.join(missing[:5])}")
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise DataError(f"a '{config.model_type}' model has no features of images and of text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    tokenizer_size, vocabulary_size = len(tokenizer), config.text_config.vocab_size
    if (
        tokenizer_size * 2 < vocabulary_size
    ):  # a folder without tokenizer files loads as an empty one, and every sentence would mean the same
        raise DataError(f"its tokenizer knows {tokenizer_size} tokens, the model {vocabulary_size}: tokenizer files are missing")
    images, _ = transformers.ImageProcessingMixin.get_image_processor_dict(**where)
    return model, tokenizer, images


def _pooled(output: Any) -> Tensor:
    """Returns the projected features, which transformers 5 wraps in an output; 4 gave the tensor itself."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _digest(model: nn.Module) -> str:
    """Returns 12 hex digits over the weights and the towers' settings, so that a model keeps its name when it is moved or downloaded
    again.
    """
    config: Any = model.config
    towers = {name: getattr(config, name).to_diff_dict() for name in ("vision_config", "text_config")}
    settings = {name: {k: v for k, v in tower.items() if k not in _PASSING} for name, tower in towers.items()}
    digest = hashlib.sha256(json.dumps([config.model_type, settings], sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()[:12]
