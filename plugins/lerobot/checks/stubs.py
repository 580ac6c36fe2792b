"""A cache of tiny random models under the ids of the published ones, so that LeRobot's programs run without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from milepost.testing import tiny_clip, tiny_vlm

COMMIT = "0" * 40
SMOLVLM, CLIP, QWEN = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "openai/clip-vit-base-patch32", "Qwen/Qwen3-VL-8B-Instruct"


def make_cache(home: Path) -> None:
    """Writes a Hugging Face home with a tiny CLIP, Qwen3-VL and SmolVLM2."""
    makers: dict[str, Callable[[Path], object]] = {SMOLVLM: tiny_smolvlm, CLIP: tiny_clip, QWEN: tiny_vlm}
    for name, make in makers.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        shutil.rmtree(repository, ignore_errors=True)
        make(repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)


def tiny_smolvlm(folder: Path) -> None:
    """Writes a SmolVLM of two layers that reads pictures of 64 x 64 pixels."""
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", "<|endoftext|>"]
    tokenizer = byte_tokenizer(marks)
    text = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": len(tokenizer), "pad_token_id": len(tokenizer) - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
    }  # fmt: skip
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.SmolVLMConfig(
        text_config=text, vision_config=vision, image_token_id=image_id, scale_factor=2, pad_token_id=len(tokenizer) - 1
    )
    torch.manual_seed(0)
    transformers.SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=transformers.SmolVLMVideoProcessor(**sizes),
        chat_template="{{ messages }}",
    ).save_pretrained(folder)


def byte_tokenizer(marks: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Returns a tokenizer of bytes, with these special tokens; the last pads and ends."""
    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(marks)
    tokens = {"fake_image_token": marks[0], "image_token": marks[1], "global_image_token": marks[2], "end_of_utterance_token": marks[3]}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=marks[-1], pad_token=marks[-1], model_max_length=512, extra_special_tokens=tokens
    )
