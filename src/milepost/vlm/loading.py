"""Opens a Qwen3-VL by folder or Hub name: dense or mixture of experts, as published or in 8 or 4 bits. transformers is imported here alone.

The code of a model folder is never run, and a checkpoint that lacks weights is refused. The message about files that are missing offline
says how to get them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from milepost.core import DataError, import_fault, load, read_json, require, shown
from milepost.encoders import require_device
from milepost.vlm.engine import Engine
from milepost.vlm.licence import say_licence
from milepost.vlm.memory import free_memory
from milepost.vlm.patches import FrameProcessor
from milepost.vlm.prompt import Prompt

FAMILIES = ("qwen3_vl", "qwen3_vl_moe")
BYTES = {"8bit": 1.0, "4bit": 0.5}
"""Of a weight that is loaded in fewer bits."""
BLOCKS, BLOCK = 64, 2**16
"""How much of a file is hashed."""
Attention = Literal["sdpa", "eager"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantization = Literal["8bit", "4bit"]


def load_engine(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: Dtype = "auto",
    quantization: Quantization | None = None,
    attention: Attention = "sdpa",
    prompt: Prompt | None = None,
    max_memory: int | None = None,
) -> Engine:
    """Returns an engine. dtype "auto": bfloat16 on a GPU, float32 on a CPU. max_memory: bytes of one pass, beside weights and KV cache.

    DataError if transformers (or, to quantize, bitsandbytes) is not installed, the model is not a Qwen3-VL, or files are missing.
    """
    where, name = located(name_or_folder, revision), str(name_or_folder)
    require_device(device)
    with naming_faults(name):
        model, tokenizer, config = _load(
            where, device=device, dtype=dtype_of(dtype, device), quantization=quantization, attention=attention
        )
        say_licence(name, card_of(where), json_of(where, "config.json") or {})
    commit = getattr(model.config, "_commit_hash", None) or ""
    processor = FrameProcessor.from_config(config)
    return Engine(
        model, tokenizer, processor=processor, prompt=prompt, max_memory=max_memory, name=name, commit=commit,
        fingerprint=fingerprint(where),
    )  # fmt: skip


def located(name_or_folder: str | Path, revision: str | None) -> dict[str, Any]:
    """Returns transformers' arguments that say where a model is: a folder, or `owner/name`. DataError if a path is no folder."""
    folder, name = Path(name_or_folder).expanduser(), str(name_or_folder)
    if not folder.is_dir() and name.startswith(("/", ".", "~")):
        raise DataError(f"there is no vision-language model in {folder}: no such folder")
    return {
        "pretrained_model_name_or_path": str(folder) if folder.is_dir() else name,
        "revision": revision,
        "trust_remote_code": False,
    }


def dtype_of(dtype: Dtype, device: str) -> torch.dtype:
    """Returns what weights are loaded as. "auto": bfloat16 on a GPU, float32 on a CPU."""
    half = dtype if dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
    loaded: torch.dtype = getattr(torch, half)
    return loaded


@contextmanager
def naming_faults(name: str) -> Iterator[None]:
    """Raises DataError that names the model in place of what fails while it is loaded."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(("it ", "its ")):
            raise DataError(f"the vision-language model '{name}' cannot be loaded: {error}") from error
        raise
    except ModuleNotFoundError as error:
        if not error.name:
            raise DataError(f"the vision-language model '{name}' cannot be loaded: transformers {import_fault(error)}") from error
        raise DataError(
            f"the vision-language model '{name}' needs the package '{error.name}' as it is saved: pip install {error.name}, or take "
            "the model as published, not quantized"
        ) from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
        raise DataError(
            f"the vision-language model '{name}' cannot be loaded: {reason}. Give a folder that holds it; a Hub model needs the network "
            f"once (hf download {'OWNER/NAME' if Path(name).expanduser().is_dir() else name}), then it works offline"
        ) from error


def fingerprint(where: dict[str, Any]) -> str:
    """Returns a hash of a model's config and weights. Of each file it covers the name, the size and 64 blocks spread over it: hashing all
    16 GB would take a minute.
    """
    from transformers.utils import cached_file

    config = cached_file(where["pretrained_model_name_or_path"], "config.json", revision=where["revision"])
    hash_ = hashlib.sha256()
    for path in sorted(Path(config).parent.iterdir()):
        if path.name == "config.json" or path.suffix in (".safetensors", ".bin"):
            size = path.stat().st_size
            hash_.update(f"{path.name} {size} ".encode())
            with path.open("rb") as file:
                for block in range(BLOCKS):
                    file.seek(max(size - BLOCK, 0) * block // (BLOCKS - 1))
                    hash_.update(file.read(BLOCK))
    return hash_.hexdigest()[:16]


def require_memory(transformers: Any, config: Any, *, device: str, each: float) -> None:
    """Raises DataError, before anything is loaded, if the weights do not fit into what is free. each: bytes of one weight."""
    with torch.device("meta"):
        needed = each * sum(weight.numel() for weight in transformers.AutoModelForImageTextToText.from_config(config).parameters())
    free = free_memory(device)
    if needed > free:
        raise DataError(
            f"its weights need {needed / 1e9:.1f} GB on the {'CPU' if device == 'cpu' else 'GPU'}, {free / 1e9:.1f} GB are free: take a "
            "smaller checkpoint, fewer bits (--precision bfloat16, on a GPU --quantization 4bit) or a server (--base-url)"
        )


def _load(
    where: dict[str, Any], *, device: str, dtype: torch.dtype, quantization: Quantization | None, attention: Attention
) -> tuple[Any, Any, dict[str, Any]]:
    """Returns (model, tokenizer, contents of the video preprocessor's config)."""
    transformers = load("transformers", purpose="vision-language models", install="milepost[vlm]")
    config = transformers.AutoConfig.from_pretrained(**where)
    if config.model_type not in FAMILIES:
        raise DataError(f"a '{config.model_type}' model cannot share prefixes here; supported are {' and '.join(FAMILIES)} (Qwen3-VL)")
    if (classes := config.architectures or []) and not any(str(each).startswith("Qwen3VL") for each in classes):
        raise DataError(f"it is a {shown(classes[0])} model: a Qwen3-VL with other outputs, which does not answer in words")
    more: dict[str, Any] = {}
    if quantization is not None:
        if quantization not in ("8bit", "4bit"):
            raise DataError(f"quantization is '8bit', '4bit' or None, not '{quantization}'")
        require("bitsandbytes")
        if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
            raise DataError(f"quantization='{quantization}' needs bitsandbytes and accelerate: pip install bitsandbytes accelerate")
        bits = {"load_in_8bit": True} if quantization == "8bit" else {"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype}
        more = {"quantization_config": transformers.BitsAndBytesConfig(**bits), "device_map": {"": device}}
    require_memory(transformers, config, device=device, each=BYTES.get(quantization or "", float(dtype.itemsize)))
    with bar_on_terminals():
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            **where, **more, config=config, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
    require_names(info["missing_keys"], info["unexpected_keys"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where, **processors_template(where))
    if len(tokenizer) <= config.video_token_id:  # a folder without tokenizer files loads as an empty one
        raise DataError(
            f"its tokenizer knows {len(tokenizer)} tokens, not the video token {config.video_token_id}: tokenizer files are missing"
        )
    model = in_one_precision(model.requires_grad_(False).eval(), dtype)
    return model if more else model.to(device), tokenizer, _video_config(where)


def require_names(missing: Iterable[str], unknown: Iterable[str]) -> None:
    """Raises DataError if weights are missing; it names some, and some of those that there are in their place."""
    missing, unknown = sorted(missing), sorted(unknown)
    if missing:
        others = f"; {len(unknown)} have names that the architecture does not have: {some(unknown)}" if unknown else ""
        raise DataError(f"its weights are incomplete, missing {len(missing)}: {some(missing)}{others}")


def some(names: list[str]) -> str:
    """Returns the first names of a list, for a message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def checkpoint_config(name_or_folder: str | Path, revision: str | None) -> dict[str, Any]:
    """Returns the config.json of a vision-language model. DataError, which says what to do, if it cannot be had."""
    load("transformers", purpose="vision-language models", install="milepost[vlm]")
    where = located(name_or_folder, revision)
    with naming_faults(str(name_or_folder)):
        return config_of(where)


def config_of(where: dict[str, Any]) -> dict[str, Any]:
    """Returns what is in a model's config.json. OSError, which says why, if it cannot be had."""
    from transformers.utils import cached_file

    cached_file(where["pretrained_model_name_or_path"], "config.json", revision=where["revision"])
    return json_of(where, "config.json") or {}


def in_one_precision(model: Any, dtype: torch.dtype) -> Any:
    """Returns the model computing in one precision: without a GPU transformers turns FP8 weights into bfloat16, whatever was asked for.

    Weights that stay quantized, and the scales beside them, are left as they are.
    """
    halves = {torch.float32, torch.float16, torch.bfloat16}
    weights = list(model.parameters())
    if {weight.dtype for weight in weights} <= halves:
        for weight in weights:
            weight.data = weight.data.to(dtype)
    return model


def processors_template(where: dict[str, Any]) -> dict[str, str]:
    """Returns the chat template of chat_template.json, where processors keep it and from where they take it first; tokenizers do not."""
    content = json_of(where, "chat_template.json") or {}
    return {"chat_template": content["chat_template"]} if isinstance(content.get("chat_template"), str) else {}


@contextmanager
def bar_on_terminals() -> Iterator[None]:
    """Switches transformers' progress bar off where the output is no terminal: it would fill log files."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def image_config(where: dict[str, Any]) -> dict[str, Any]:
    """Returns preprocessor_config.json, or the part of processor_config.json where newer folders have it; else what is said of videos."""
    for file in ("preprocessor_config.json", "processor_config.json"):
        content = json_of(where, file) or {}
        part = content.get("image_processor", {}) if file == "processor_config.json" else content
        if "size" in part:
            return dict(part)
    return _video_config(where)


def _video_config(where: dict[str, Any]) -> dict[str, Any]:
    """Returns video_preprocessor_config.json, or the part of processor_config.json where newer folders have it."""
    for file in ("video_preprocessor_config.json", "processor_config.json"):
        content = json_of(where, file) or {}
        part = content.get("video_processor", content) if file == "processor_config.json" else content
        if "size" in part:
            return dict(part)
    raise DataError(
        "it has neither preprocessor_config.json nor video_preprocessor_config.json, which say what size its frames should have"
    )


def path_of(where: dict[str, Any], file: str) -> Path | None:
    """Returns where a file of the model's folder is, downloaded if need be; None if the folder has no such file."""
    from transformers.utils import cached_file

    source = where["pretrained_model_name_or_path"]
    path = cached_file(source, file, revision=where["revision"], _raise_exceptions_for_missing_entries=False)
    return None if path is None else Path(path)


def card_of(where: dict[str, Any]) -> Path | None:
    """Returns where the model's card is; None if it has none, or none is here and the Hub cannot be reached."""
    from transformers.utils import cached_file

    path = cached_file(
        where["pretrained_model_name_or_path"],
        "README.md",
        revision=where["revision"],
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def json_of(where: dict[str, Any], file: str) -> dict[str, Any] | None:
    """Returns what is in a file of the model's folder; None if the folder has no such file."""
    path = path_of(where, file)
    if path is None:
        return None
    content = read_json(path, what="file")
    if not isinstance(content, dict):
        raise DataError(f"its {file} should hold names and values, it holds a {type(content).__name__}")
    return content
