"""The dense curve on a GPU, with random weights in the shape of Qwen3-VL-8B: seconds, share of the card's matrix rate, memory, drift.

    PYTHONPATH=src python benchmarks/topreward_gpu.py [--frames 64 300] [--sizes 480x640 224x224] [--json FILE] [--hidden N ...]
    PYTHONPATH=src python benchmarks/topreward_gpu.py --tiny

Weights are made on the spot, in bfloat16 on the GPU; the tokenizer is the tests' tiny one, whose questions have about as many tokens as
the published one's. Needs torch, transformers, safetensors and jaxtyping. `--tiny` is a dry run of the script on a CPU in float32.
FLOPs are those the answers need (a token's weights twice, keys really looked at), not those spent on what is masked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milepost.vlm.engine import Engine
from milepost.vlm.patches import FrameProcessor

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "qwen3vl_tiny"
TASKS = (
    "pick up the hammer and drive the nail into the wall", "slide the window open", "drive the nail into the wall", "pick up the hammer",
    "pick up the nail and slide the window open", "slide the hammer into the wall", "drive the window into the wall", "pick up the window",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Qwen3-VL-8B's, from its published config."""

    hidden: int = 4096
    layers: int = 36
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 12288
    vocab: int = 151936
    rope_theta: float = 5e6
    vision_depth: int = 27
    vision_hidden: int = 1152
    vision_heads: int = 16
    vision_intermediate: int = 4304
    vision_positions: int = 2304

    @property
    def deepstack(self) -> list[int]:
        """Which vision layers' features are added to the language model: 8, 16 and 24 of 27."""
        return [round(self.vision_depth * part / 27) for part in (8, 16, 24)]

    @property
    def sections(self) -> list[int]:
        """Rotary frequencies for time, height and width: 24, 20 and 20 of 64."""
        side = self.head_dim * 5 // 32
        return [self.head_dim // 2 - 2 * side, side, side]


TINY = Shape(64, 3, 4, 2, 32, 128, 512, 5e6, 4, 32, 2, 64, 2304)
SMALLER = {"hidden": 1024, "layers": 12, "heads": 8, "kv_heads": 4, "intermediate": 3072}
"""For the drift between bfloat16 and float32, which needs a float32 copy."""


def build(shape: Shape, *, device: str, dtype: torch.dtype, seed: int = 0) -> Engine:
    """A model with random weights, made where it runs."""
    import transformers

    ids = json.loads((FOLDER / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta, "mrope_section": shape.sections, "mrope_interleaved": True}
    text = {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab, "max_position_embeddings": 262144, "rope_parameters": rope, "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "depth": shape.vision_depth, "hidden_size": shape.vision_hidden, "num_heads": shape.vision_heads, "patch_size": 16,
        "intermediate_size": shape.vision_intermediate, "num_position_embeddings": shape.vision_positions,
        "deepstack_visual_indexes": shape.deepstack, "out_hidden_size": shape.hidden,
    }  # fmt: skip
    marks = {name: ids[name] for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")}
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **marks)
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = model.to(device).requires_grad_(False).eval()  # with a dtype it would round the rotary frequencies, which no loaded model does
    generator = torch.Generator(device).manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim > 1:  # scaled to the width it reads, so that 36 layers neither fade nor explode
            weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    return Engine(model, transformers.AutoTokenizer.from_pretrained(FOLDER), processor=FrameProcessor())


def frames_of(count: int, size: tuple[int, int]) -> np.ndarray:
    """Blobs that change from frame to frame, (count, H, W, 3) uint8; sides divisible by 32."""
    height, width = size
    coarse = np.random.default_rng(count).integers(0, 256, (count, height // 32, width // 32, 3), dtype=np.uint8)
    return coarse.repeat(32, 1).repeat(32, 2)


def seconds(run: Callable[[], Any], device: str) -> float:
    """Of the clock, the device's work done."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of a square product of random matrices, the median of ten rounds of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds(lambda: [a @ b for _ in range(3)], device)
    return 10 * 2 * side**3 / statistics.median(seconds(lambda: [a @ b for _ in range(10)], device) for _ in range(10))


def weights_in(module: torch.nn.Module) -> int:
    """Numbers a token is multiplied with."""
    return sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)


def needed_flops(engine: Engine, count: int, size: tuple[int, int]) -> dict[str, float]:
    """What one dense curve with one instruction needs at least. The last layer counts keys and values, and the answers' rows."""
    networks, processor = engine.networks, engine.processor
    text, tower = networks.config, networks.model.config.vision_config
    question = len(engine._prompt_tokens.question(TASKS[0], ["True"])[0])
    stamps = [len(engine._prompt_tokens.stamp(group, time_s=1.0, tokens=processor.tokens(size))) for group in range((count + 1) // 2)]
    ends = np.cumsum([0, *stamps])
    pairs, answers, tokens = ends[count // 2] * (ends[count // 2] + 1) / 2, 0.0, float(ends[count // 2])
    for n in range(1, count + 1):
        before, own = ends[n // 2], (stamps[n // 2] if n % 2 else 0) + question
        pairs += own * before + own * (own + 1) / 2
        answers += before + own
        tokens += own
    *layers, last = networks.text.layers
    width = 4 * text.num_attention_heads * text.head_dim
    kept = weights_in(last.self_attn.k_proj) + weights_in(last.self_attn.v_proj)
    groups, patches = count // 2 + (count + 1) // 2, 4 * processor.tokens(size)
    attended = 4 * tower.depth * tower.hidden_size * patches**2
    merged = [networks.tower.merger, *networks.tower.deepstack_merger_list]
    seen = sum(map(weights_in, networks.tower.blocks)) + weights_in(networks.tower.patch_embed)
    return {
        "language, weights": 2 * tokens * (sum(map(weights_in, layers)) + kept) + 2 * count * (weights_in(last) - kept),
        "language, attention": width * (len(layers) * pairs + answers),
        "vision": groups * (2 * patches * seen + patches // 2 * sum(map(weights_in, merged)) + attended),
        "answers": 2.0 * count * weights_in(networks.model.lm_head),
    }


def bare(engine: Engine, frames: np.ndarray, device: str, rounds: int) -> float:
    """Seconds of one forward of the whole clip by the model's own code, its inputs ready."""
    marks: list[float] = []

    def mark(*_: Any) -> None:
        wait(device)
        marks.append(time.perf_counter())

    hooks = [engine.networks.model.register_forward_pre_hook(mark), engine.networks.model.register_forward_hook(mark)]
    for _ in range(rounds + 1):
        engine.separate(engine.clip(frames, fps=2.0), instructions=TASKS[:1], prefixes=[len(frames)])
    for hook in hooks:
        hook.remove()
    return statistics.median(np.diff(marks)[::2][1:].tolist())


def curve(engine: Engine, frames: np.ndarray, tasks: int = 1, path: str = "score") -> np.ndarray:
    return getattr(engine, path)(engine.clip(frames, fps=2.0), instructions=TASKS[:tasks])


def dense(engine: Engine, counts: list[int], sizes: list[tuple[int, int]], device: str, rate: float, rounds: int) -> list[dict[str, Any]]:
    rows = []
    print("\n| frames | size | s a curve | language tokens | TFLOP needed: weights, attention, vision | share of the matrix rate | "
          "one bare forward, s | curve : bare | GB at the peak | GB of weights |\n" + "|---" * 10 + "|")  # fmt: skip
    for size in sizes:
        curve(engine, frames_of(8, size))
        for count in counts:
            frames = frames_of(count, size)
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            curve(engine, frames[: min(count, 64)])
            engine.tokens.clear()
            spent = statistics.median(seconds(lambda frames=frames: curve(engine, frames), device) for _ in range(rounds))
            tokens = engine.tokens.total() // rounds
            peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
            flops, floor = needed_flops(engine, count, size), bare(engine, frames, device, rounds)
            held = sum(weight.numel() * weight.itemsize for weight in engine.networks.model.parameters()) / 1e9
            share = sum(flops.values()) / spent / rate
            parts = ", ".join(f"{flops[name] / 1e12:.4g}" for name in ("language, weights", "language, attention", "vision"))
            print(f"| {count} | {size[0]} x {size[1]} | {spent:.3f} | {tokens} | {parts} | {100 * share:.1f} % | {floor:.3f} | "
                  f"{spent / floor:.2f} | {peak:.1f} | {held:.1f} |", flush=True)  # fmt: skip
            rows.append({"frames": count, "size": size, "s": spent, "tokens": tokens, "flops": flops, "share": share, "bare_s": floor,
                         "peak_gb": peak, "weights_gb": held})  # fmt: skip
    return rows


def separately(engine: Engine, sizes: list[tuple[int, int]], count: int, device: str) -> list[dict[str, Any]]:
    """The same curve by a forward a prefix, once, and how far apart in this precision."""
    rows = []
    print(f"\n| {count} frames | shared, s | a forward a prefix, s | ratio | largest difference, nats |\n" + "|---" * 5 + "|")
    for size in sizes:
        frames, said = frames_of(count, size), []
        spent = [seconds(lambda path=path, frames=frames, said=said: said.append(curve(engine, frames, 1, path)), device)
                 for path in ("score", "separate")]  # fmt: skip
        off = float(np.abs(said[0] - said[1]).max())
        print(f"| {size[0]} x {size[1]} | {spent[0]:.3f} | {spent[1]:.2f} | {spent[1] / spent[0]:.1f} | {off:.1e} |", flush=True)
        rows.append({"size": size, "s": spent, "off": off})
    return rows


def instructions(engine: Engine, sizes: list[tuple[int, int]], count: int, device: str, rounds: int) -> list[dict[str, Any]]:
    rows = []
    print(f"\n| {count} frames | instructions | s | over one | allowed |\n" + "|---" * 5 + "|")
    for size in sizes:
        frames, one = frames_of(count, size), 0.0
        for number in (1, 2, 4, 8):
            spent = statistics.median(seconds(lambda n=number, f=frames: curve(engine, f, n), device) for _ in range(rounds))
            one = one or spent
            print(f"| {size[0]} x {size[1]} | {number} | {spent:.3f} | {spent / one:.2f} | {1 + 0.15 * number:.2f} |", flush=True)
            rows.append({"size": size, "instructions": number, "s": spent})
    return rows


def drift(shape: Shape, *, device: str, count: int, size: tuple[int, int]) -> dict[str, float]:
    """How far bfloat16 is from float32 on a smaller model with the same weights, in nats; and sharing, in each, from a forward a prefix."""
    exact, frames = build(shape, device=device, dtype=torch.float32), frames_of(count, size)
    half = build(shape, device=device, dtype=torch.bfloat16)
    half.networks.model.load_state_dict(exact.networks.model.state_dict())
    said = {(name, path): curve(engine, frames, 2, path)
            for name, engine in (("float32", exact), ("bfloat16", half)) for path in ("score", "separate")}  # fmt: skip
    truth = said["float32", "separate"]
    print(f"\n| {count} frames of {size[0]} x {size[1]}, {shape.layers} layers of width {shape.hidden} | largest difference, nats | mean |")
    print("|---|---|---|")
    found = {}
    for name, one, other in (
        ("float32: shared from a forward a prefix", said["float32", "score"], truth),
        ("bfloat16: a forward a prefix from float32's", said["bfloat16", "separate"], truth),
        ("bfloat16: shared from float32's", said["bfloat16", "score"], truth),
        ("bfloat16: shared from a forward a prefix", said["bfloat16", "score"], said["bfloat16", "separate"]),
    ):
        found[name] = float(np.abs(one - other).max())
        print(f"| {name} | {found[name]:.1e} | {np.abs(one - other).mean():.1e} |")
    spread = float(truth[:, :, 0].std(axis=1).mean())
    print(f"\nA curve's standard deviation {spread:.3f} nats.")
    return {**found, "spread": spread}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a dry run on a CPU")
    parser.add_argument("--frames", type=int, nargs="+", default=[64, 300])
    parser.add_argument("--sizes", nargs="+", default=["480x640", "224x224"], help="height x width, divisible by 32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    for field in fields(Shape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=None)
    words = parser.parse_args()
    device, dtype = ("cpu", torch.float32) if words.tiny else ("cuda", torch.bfloat16)
    if not words.tiny and not torch.cuda.is_available():
        sys.exit("there is no GPU here; --tiny is a dry run on a CPU")
    chosen = {field.name: getattr(words, field.name) for field in fields(Shape) if getattr(words, field.name) is not None}
    shape = replace(TINY if words.tiny else Shape(), **chosen)
    sizes = [(int(size.split("x")[0]), int(size.split("x")[1])) for size in words.sizes]
    counts = words.frames if not words.tiny else [min(count, 10) for count in words.frames]
    if words.tiny:
        sizes = [(96, 128), (64, 64)]
    import transformers

    rate = matrix_rate(device, dtype, 8192 if device == "cuda" else 1024)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{card}, torch {torch.__version__}, transformers {transformers.__version__}, {dtype}: {rate / 1e12:.3g} TFLOP/s of matrix products"
    )
    engine = build(shape, device=device, dtype=dtype)
    results: dict[str, Any] = {"card": card, "rate": rate, "shape": asdict(shape)}
    results["dense"] = dense(engine, counts, sizes, device, rate, words.rounds)
    results["instructions"] = instructions(engine, sizes, counts[0], device, words.rounds)
    results["separate"] = separately(engine, sizes, counts[0], device)
    del engine
    smaller = shape if words.tiny else replace(shape, **SMALLER)
    results["drift"] = drift(smaller, device=device, count=min(counts[0], 32), size=sizes[-1])
    if words.json:
        words.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
