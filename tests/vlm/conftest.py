"""The tiny Qwen3-VL with what LeRobot's TOPReward made of it, and random ones of any shape with its tokenizer."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from milepost.vlm.engine import Engine
from milepost.vlm.loading import load_engine
from milepost.vlm.patches import FrameProcessor

FOLDER = Path(__file__).parents[1] / "data" / "qwen3vl_tiny"
TASK = "pick up the hammer and drive the nail into the wall"


@functools.cache
def golden_file() -> dict:
    return json.loads((FOLDER / "golden.json").read_text())


@functools.cache
def loaded(attention: str) -> Engine:
    return load_engine(FOLDER, attention=attention)


@pytest.fixture(scope="session")
def golden() -> dict:
    return golden_file()


@pytest.fixture(scope="session")
def clips() -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / "clips.npz"))


@pytest.fixture(params=["sdpa", "eager"])
def engine(request) -> Engine:
    return loaded(request.param)


@pytest.fixture
def tiny() -> Engine:
    """An engine of its own: budget and prompt may be changed."""
    return load_engine(FOLDER)


@functools.cache
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def random_engine(seed: int, *, text: dict, vision: dict, attention: str = "sdpa", experts: bool = False, **settings) -> Engine:
    """Random weights, large enough for every path to matter, in the shapes given; the tiny one's tokenizer."""
    base = json.loads((FOLDER / "config.json").read_text())
    hidden = text.get("hidden_size", base["text_config"]["hidden_size"])
    config = {
        "text_config": base["text_config"] | text,
        "vision_config": base["vision_config"] | vision | {"out_hidden_size": hidden},
        **{name: base[name] for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")},
    }
    for part in ("text_config", "vision_config"):
        del config[part]["model_type"]
    name = "Qwen3VLMoe" if experts else "Qwen3VL"
    made = getattr(transformers, f"{name}Config")(**config)
    made._attn_implementation = attention
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(made).float().eval().requires_grad_(False)
    model.set_attn_implementation(attention)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.1)
    return Engine(model, tokenizer(), processor=FrameProcessor(patch=config["vision_config"]["patch_size"]), **settings)


@pytest.fixture(scope="session")
def folder() -> Path:
    return FOLDER


@pytest.fixture(name="random_engine", scope="session")
def random_engine_fixture():
    return random_engine
