"""Labelling and training a SARM, beside LeRobot 0.6.1, on the same files: how long, how far from the bare networks, and the same numbers?

    python benchmarks/lerobot_speed.py make FOLDER
    python benchmarks/lerobot_speed.py label FOLDER MODE LEROBOT_PYTHON [ROUNDS] [STRIDE]
    python benchmarks/lerobot_speed.py train FOLDER MODE LEROBOT_PYTHON [ROUNDS] [STEPS]

MODE is single_stage or dual (both heads labelled); for `train` also sparse_only, which LeRobot does not have: then "-" instead of
LEROBOT_PYTHON, an interpreter with lerobot[sarm], which loads nothing of milepost.
`make` writes three short AV1 episodes, CLIP ViT-B/32 with random weights as a Hugging Face cache would hold it (its text tower has a
small vocabulary) and random SARMs of LeRobot's default size. `label` and `train` run LeRobot and us in turns, one process at a time,
2 threads, float32, and print a markdown table of medians; all of it goes to FOLDER/{label,train}-MODE.json. `label` compares progress
and stage probabilities frame by frame and exits 1 if they differ by more than 1e-4.

LeRobot's labelling is its own `compute_sarm_progress`, timed from one frame's stage network to the next one's; STRIDE is its --stride,
and only the frames it computes are counted and compared. Its training step is its data loader (no workers, as we have none), its
processor (13 pictures a sample through CLIP), forward, backward, clipping and AdamW; ours is `TrainingSet.sample` on kept features
and the same. "Bare" is PyTorch's own encoder over every token of ready windows, and one CLIP forward a frame.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

CLIP, REPO, TOP, FPS, SIZE, LENGTHS = "openai/clip-vit-base-patch32", "local/speed", "observation.images.top", 30, (480, 640), (64, 48, 56)
STAGES = {"sparse": (0.2, 0.5, 0.3), "dense": (0.1, 0.3, 0.2, 0.25, 0.15)}
SIZES = {"default": (768, 8, 12), "small": (256, 4, 8)}
"""hidden_dim, num_layers, num_heads."""
BATCH, ALLOWED = 8, 1e-4
FORWARD_BATCHES, PLAN = (8, 16, 32), {"episodes": 100, "frames": 900, "steps": 5000}
TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "clip_tiny"


def heads_of(mode: str) -> tuple[str, ...]:
    return ("sparse", "dense") if mode == "dual" else ("sparse",)


# The files


def make(folder: Path) -> int:
    from milepost.models.sarm.model import SARMModel

    make_clip(folder / "hf" / "hub" / f"models--{CLIP.replace('/', '--')}")
    make_dataset(folder)
    for mode in ("single_stage", "dual"):
        torch.manual_seed(0)
        model = SARMModel(sarm_config(mode, "default", decode="argmax"))
        spread_out(model, folder)
        model.save_pretrained(folder / mode, format="lerobot")
    print(f"dataset, CLIP and SARMs in {folder}")
    return 0


def spread_out(model: Any, folder: Path) -> None:
    """A fresh model hardly looks at its input: shake it, then centre and scale its heads until its answers for these frames differ."""
    from milepost.datasets.reader import open_dataset
    from milepost.encoders.clip import ClipEncoder
    from milepost.encoders.features import FeatureCache

    snapshot = folder / "hf" / "hub" / f"models--{CLIP.replace('/', '--')}" / "snapshots" / ("0" * 40)
    encoder, episodes = ClipEncoder.load(str(snapshot)), list(open_dataset(folder / REPO))
    model.config = dataclasses.replace(model.config, state_mean=(0.0,) * 7, state_std=(1.0,) * 7)
    features = list(FeatureCache(folder / "features", "speed", encoder=encoder).stream(episodes, (TOP,)))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
        for network, scale in ((model.stage_model, 2.0), (model.subtask_model, 1.5)):  # the second sees what the first says
            seen: dict[str, list[torch.Tensor]] = {name: [] for name in network.heads}
            hooks = [
                module.register_forward_hook(
                    lambda _, args, __, name=name, seen=seen: seen[name].append(args[0][..., -1, :].reshape(-1, model.config.hidden_dim))
                )
                for name, module in network.heads.items()
            ]
            for episode, found in zip(episodes, features, strict=True):
                model.predict_features(episode, found.astype(np.float32), text=encoder.text([episode.task])[0])
            for name, module in network.heads.items():
                if not seen[name]:  # one stage: the stage network is not asked
                    continue
                hidden = torch.cat(seen[name])
                module.weight.mul_(scale / (hidden @ module.weight.T).std(0).mean())
                module.bias.copy_(-(hidden @ module.weight.T).mean(0))
            for hook in hooks:
                hook.remove()


def make_clip(repo: Path) -> None:
    import transformers

    tiny = json.loads((TOKENIZER / "config.json").read_text())["text_config"]
    words = {name: tiny[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=words, projection_dim=512))
    with torch.no_grad():  # features as wide as a trained model's
        model.visual_projection.weight.mul_(2)
        model.text_projection.weight.mul_(2)
    snapshot = repo / "snapshots" / ("0" * 40)
    model.save_pretrained(snapshot)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (snapshot / name).write_bytes((TOKENIZER / name).read_bytes())
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text("0" * 40)


def make_dataset(folder: Path) -> None:
    from milepost.core.types import Segment
    from milepost.datasets.recording import Recording
    from milepost.datasets.writer import assemble, encode_episode

    parts = []
    for number, length in enumerate(LENGTHS):
        rng = np.random.default_rng(number)
        ground = rng.integers(0, 200, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        images = [np.roll(ground, 6 * i, axis=1) for i in range(length)]
        for i, image in enumerate(images):
            image[100:220, 8 * i : 8 * i + 120] = (255, 40, 4 * i)
        segments = {}
        for head, shares in STAGES.items():
            ends = np.round(np.cumsum(shares) * length).astype(int)
            starts = [0, *ends[:-1]]
            segments[head] = [Segment(f"{head} {k}", int(a), int(b)) for k, (a, b) in enumerate(zip(starts, ends, strict=True))]
        state = np.cumsum(rng.standard_normal((length, 7)), axis=0).astype(np.float32)
        parts.append(folder / "parts" / f"{number}")
        recording = Recording("slide the block to the right", state, state[:, :2], {TOP: images}, segments=segments)
        encode_episode(parts[-1], recording, fps=FPS)
    proportions = {head: {f"{head} {k}": share for k, share in enumerate(shares)} for head, shares in STAGES.items()}
    assemble(folder / REPO, parts, fps=FPS, proportions=proportions)


def sarm_config(mode: str, size: str, **more: Any) -> Any:
    from milepost.models.sarm.config import SARMConfig

    hidden, layers, heads = SIZES[size]
    fields: dict[str, Any] = {"annotation_mode": mode, "hidden_dim": hidden, "num_layers": layers, "num_heads": heads, **more}
    for head, shares in STAGES.items() if mode in ("dual", "sparse_only") else ():
        fields[f"{head}_subtask_names"] = tuple(f"{head} {k}" for k in range(len(shares)))
        fields[f"{head}_temporal_proportions"] = shares
    return SARMConfig(
        window="centred", attention="lerobot", frame_gap=30, encoder=CLIP, image_dim=512, text_dim=512,
        state_mean=(0.0,) * 7, state_std=(1.0,) * 7, **fields,
    )  # fmt: skip


# LeRobot, in its own interpreter. Nothing is uploaded: only its command line does that.


def lerobot_label(folder: Path, mode: str, stride: int) -> dict[str, Any]:
    import lerobot.rewards.sarm.compute_rabc_weights as theirs

    use_pyav(theirs)
    load, seen = theirs.load_sarm_resources, {f"{head}_stage": [] for head in heads_of(mode)}

    def loaded(*args: Any, **kwargs: Any) -> Any:
        dataset, model, preprocess = load(*args, **kwargs)
        model.stage_model.register_forward_hook(note, with_kwargs=True)
        return dataset, model, preprocess

    def note(module: torch.nn.Module, args: tuple, kwargs: dict, logits: torch.Tensor) -> None:
        seen[f"{kwargs['scheme']}_stage"].append(logits[0, logits.shape[1] // 3].softmax(-1).numpy())
        if kwargs["scheme"] == "sparse":
            features.append(args[0][0, 0, 4].numpy())
            marks.append(time.perf_counter())

    features: list[np.ndarray] = []
    marks: list[float] = []
    theirs.load_sarm_resources = loaded
    out = folder / f"lerobot-{mode}.parquet"
    head = "both" if mode == "dual" else "sparse"
    theirs.compute_sarm_progress(REPO, str(folder / mode), str(out), head, "cpu", 0, stride=stride)
    import pyarrow.parquet as pq

    table, rows = pq.read_table(out), []
    for start, length in zip(np.cumsum([0, *LENGTHS]), LENGTHS, strict=False):
        chosen = [i for i in theirs.generate_all_frame_indices(int(start), int(start) + length) if (i - start) % stride == 0]
        rows += chosen if stride == 1 else sorted({*chosen, int(start) + length - 1})
    arrays = {f"{head}_progress": table[f"progress_{head}"].to_numpy()[rows] for head in heads_of(mode)}
    stages = {name: np.stack(values) for name, values in seen.items()}
    np.savez(folder / f"lerobot-{mode}.npz", rows=rows, features=np.stack(features), **arrays, **stages)
    return {"ms_per_frame": 1000 * statistics.median(np.diff(marks).tolist()), "frames": len(rows)}


def use_pyav(module: Any) -> None:
    from functools import partial

    module.LeRobotDataset = partial(module.LeRobotDataset, video_backend="pyav")


def lerobot_train(folder: Path, mode: str, size: str, steps: int) -> dict[str, Any]:
    import lerobot.rewards.sarm.compute_rabc_weights as theirs
    from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel

    use_pyav(theirs)
    dataset, model, preprocess = theirs.load_sarm_resources(REPO, str(folder / mode), "cpu")
    config = model.config
    config.hidden_dim, config.num_layers, config.num_heads = SIZES[size]
    torch.manual_seed(0)
    model = SARMRewardModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-3)
    loader = iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True))
    times: dict[str, list[float]] = {"data": [], "encode": [], "step": []}
    for _ in range(steps):
        marks = [time.perf_counter()]
        batch = next(loader)
        marks.append(time.perf_counter())
        batch = preprocess(batch)
        marks.append(time.perf_counter())
        loss, _ = model(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        marks.append(time.perf_counter())
        for name, spent in zip(times, np.diff(marks), strict=True):
            times[name].append(spent)
    return {name: 1000 * statistics.median(values[1:] or values) for name, values in times.items()}


# Ours


def our_label(folder: Path, mode: str, precision: str = "float32", kept_in: str = "float32", only: int = 3) -> dict[str, Any]:
    """`label --no-cache` (or with float16 features, as kept ones are) on the first `only` episodes."""
    from milepost.datasets.reader import open_dataset
    from milepost.encoders.features import FeatureCache
    from milepost.models.sarm.model import SARMModel

    dataset = open_dataset(folder / REPO, episodes=range(only))
    model = SARMModel.from_pretrained(folder / mode, state_stats=folder / REPO, precision=precision)
    model.cache = cache = FeatureCache(None, "", encoder=model.frozen, half=kept_in == "float16")
    began = time.perf_counter()
    curves = [model.predict(episode) for episode in dataset]
    spent = time.perf_counter() - began
    kept = [cache.features(episode, (TOP,)) for episode in dataset]
    found = {head: [curve.heads.get(head) for curve in curves] for head in ("sparse", "dense")}
    arrays = {}
    for head in heads_of(mode):
        arrays[f"{head}_progress"] = np.concatenate([curve.value for curve in found[head]])
        arrays[f"{head}_stage"] = np.concatenate([curve.stage for curve in found[head]])
    np.savez(folder / f"ours-{mode}-{precision}-{kept_in}.npz", features=np.concatenate(kept)[:, 0], **arrays)
    return {"ms_per_frame": 1000 * spent / sum(LENGTHS[:only]), "frames": sum(LENGTHS[:only])}


def plain_forward(network: Any, images: torch.Tensor, text: torch.Tensor, state: torch.Tensor, stage: torch.Tensor | None) -> torch.Tensor:
    """One of the two networks as anyone would write it: every token of the window, PyTorch's own encoder."""
    size, length = images.shape[:2]
    streams = [network.visual_proj(images), network.lang_proj(text)[:, None].expand(-1, length, -1), network.state_proj(state)]
    if stage is not None:
        streams.append(F.pad(stage, (0, network.hidden - stage.shape[-1])))
    tokens = torch.cat(streams, dim=1)
    mask = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), diagonal=1)
    mixed = network.transformer(tokens, mask=mask, is_causal=True)
    fused = network.fusion_backbone(mixed.view(size, len(streams), length, -1).transpose(1, 2).flatten(2))
    return network.heads["sparse"](fused)


def windows(size: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    told = F.one_hot(torch.randint(0, 3, (size, length)), 3).float()
    return torch.randn(size, length, 512), torch.randn(size, 512), torch.randn(size, length, 32), told


def bare_label(folder: Path, mode: str) -> dict[str, Any]:
    """One CLIP forward a frame and one forward of each network a window, from ready tensors, each at its best batch."""
    from milepost.encoders.clip import ClipEncoder
    from milepost.models.sarm.model import SARMModel

    encoder, model = ClipEncoder.load(CLIP), SARMModel.from_pretrained(folder / mode, state_stats=folder / REPO)
    out: dict[str, float] = {}
    with torch.inference_mode():
        for size in FORWARD_BATCHES:
            pixels, (images, text, state, told) = torch.randn(size, 3, 224, 224), windows(size, 9)
            out[f"encoder_{size}"] = best(lambda pixels=pixels: encoder._model.get_image_features(pixel_values=pixels)) / size
            both = lambda a=images, b=text, c=state, d=told: (  # noqa: E731
                plain_forward(model.stage_model, a, b, c, None),
                plain_forward(model.subtask_model, a, b, c, d),
            )
            out[f"sarm_{size}"] = best(both) / size
    return out | {part: min(v for k, v in out.items() if k.startswith(part)) for part in ("encoder", "sarm")}


def best(work: Callable[[], object], rounds: int = 3) -> float:
    """Milliseconds, the median after one round to warm up."""
    spent = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent[1:])


def our_train(folder: Path, mode: str, size: str, steps: int) -> dict[str, Any]:
    """Our step and the bare forward and backward of the two networks (the second once for each head with LeRobot), in turns."""
    from milepost.datasets.reader import open_dataset
    from milepost.models.sarm.model import SARMModel
    from milepost.models.sarm.samples import TrainingSet, label_episode

    rng = np.random.default_rng(0)
    config = sarm_config(mode, size)
    features = [rng.standard_normal((length, 1, 512), dtype=np.float32) for length in LENGTHS]
    labelled = [label_episode(e, f, config) for e, f in zip(open_dataset(folder / REPO), features, strict=True)]
    data = TrainingSet(labelled, config, words=lambda tasks: rng.standard_normal((len(tasks), 512), dtype=np.float32))
    torch.manual_seed(0)
    model = SARMModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=1e-3, fused=True)
    times: dict[str, list[float]] = {"sample": [], "loss": [], "backward": [], "optimizer": [], "step": [], "bare": []}
    images, text, state, told = windows(BATCH, 13)
    for _ in range(steps):
        marks = [time.perf_counter()]
        batch = data.sample(BATCH, rng)
        marks.append(time.perf_counter())
        loss, _ = model.loss(batch)
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        bare = time.perf_counter()
        passes = [plain_forward(model.stage_model, images, text, state, None)]
        passes += [plain_forward(model.subtask_model, images, text, state, told) for _ in heads_of(mode)]
        torch.stack([one.square().mean() for one in passes]).sum().backward()
        spent = [*np.diff(marks), marks[-1] - marks[0], time.perf_counter() - bare]
        for name, value in zip(times, spent, strict=True):
            times[name].append(value)
    return {name: 1000 * statistics.median(values[1:] or values) for name, values in times.items()}


# The comparison


def child(python: str, folder: Path, *words: str) -> dict[str, Any]:
    """One measurement in a process of its own; what it prints last is its result."""
    environment = {
        **os.environ, "HF_HOME": str(folder / "hf"), "HF_LEROBOT_HOME": str(folder), "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    done = subprocess.run([python, __file__, words[0], str(folder), *words[1:]], env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{words[0]} failed")
    return json.loads(done.stdout.splitlines()[-1])


def middle(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def label(folder: Path, mode: str, python: str, rounds: int = 3, stride: int = 8) -> int:
    turns = [
        (child(python, folder, "lerobot_label", mode, str(stride)), child(sys.executable, folder, "our_label", mode),
         child(sys.executable, folder, "bare_label", mode))
        for _ in range(rounds)
    ]  # fmt: skip
    theirs, ours, bare = (middle([turn[i] for turn in turns]) for i in range(3))
    half = child(sys.executable, folder, "our_label", mode, "bfloat16", "float32", "1")
    floor = bare["encoder"] + bare["sarm"]
    ratios = {"ours_to_lerobot": ours["ms_per_frame"] / theirs["ms_per_frame"], "ours_to_bare": ours["ms_per_frame"] / floor}
    child(sys.executable, folder, "our_label", mode, "float32", "float16")
    kinds = {"float32": "float32-float32", "features rounded to float16": "float32-float16", "bfloat16, first episode": "bfloat16-float32"}
    off = {kind: differences(folder, mode, name) for kind, name in kinds.items()}
    print("| labelling, " + mode + " | ms a frame | of ours |\n|---|---|---|")
    rows = {"LeRobot": theirs["ms_per_frame"], "ours": ours["ms_per_frame"], "bare encoder": bare["encoder"], "bare SARM": bare["sarm"]}
    for name, spent in {**rows, "bare encoder + bare SARM": floor, f"ours, bfloat16 ({half_support()})": half["ms_per_frame"]}.items():
        print(f"| {name} | {spent:.1f} | {spent / ours['ms_per_frame']:.2f} |")
    print(f"\nAgainst LeRobot, largest difference (float32 must stay within {ALLOWED:.0e}):\n")
    print(f"| number | {' | '.join(kinds)} | spread |\n|---|---|---|---|---|")
    for name, (_, spread) in off["float32"].items():
        print(f"| {name} | {' | '.join(f'{off[kind][name][0]:.1e}' for kind in kinds)} | {spread:.2f} |")
    write(folder / f"label-{mode}.json", rounds=turns, bfloat16=half, ratios=ratios, off=off, bf16=half_support())
    return 0 if all(largest <= ALLOWED for name, (largest, _) in off["float32"].items() if name != "features") else 1


def differences(folder: Path, mode: str, kind: str) -> dict[str, tuple[float, float]]:
    """Name -> (largest difference, LeRobot's standard deviation), over the frames LeRobot computed."""
    theirs, ours = dict(np.load(folder / f"lerobot-{mode}.npz")), dict(np.load(folder / f"ours-{mode}-{kind}.npz"))
    rows = theirs.pop("rows")
    there = rows < len(ours["features"])
    return {name: (float(np.abs(ours[name][rows[there]] - value[there]).max()), float(value.std())) for name, value in theirs.items()}


def half_support() -> str:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    found = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    return ", ".join(found) or "this CPU has none: its time says nothing"


def train(folder: Path, mode: str, python: str, rounds: int = 3, steps: int = 6) -> int:
    encoding = middle([child(sys.executable, folder, "bare_label", "dual")])["encoder"]
    results: dict[str, Any] = {"encoder_ms": encoding, "plan": PLAN}
    print(f"| training, {mode}, batch {BATCH} | LeRobot ms a step | ours | bare | ours : LeRobot | ours : bare | with encoding once |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        turns = []
        for _ in range(rounds):
            first = child(python, folder, "lerobot_train", mode, size, str(steps)) if python != "-" else {"none": float("nan")}
            turns.append((first, child(sys.executable, folder, "our_train", mode, size, str(2 * steps))))
        theirs, ours = (middle([turn[i] for turn in turns]) for i in range(2))
        whole, once = sum(theirs.values()), encoding * PLAN["episodes"] * PLAN["frames"] / PLAN["steps"]
        shown = f"{ours['step']:.0f} | {ours['bare']:.0f} | {ours['step'] / whole:.3f} | {ours['step'] / ours['bare']:.2f}"
        print(f"| {size} {SIZES[size]} | {whole:.0f} | {shown} | {(ours['step'] + once) / whole:.3f} |")
        results[size] = {"rounds": turns, "lerobot": theirs, "ours": ours, "encoding_per_step_ms": once}
    frames = PLAN["episodes"] * PLAN["frames"]
    print(f"\nEncoding once, projected: {encoding:.1f} ms x {frames} frames, spread over {PLAN['steps']} steps; another run pays none.")
    write(folder / f"train-{mode}.json", **results)
    return 0


def write(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n")


def main(words: list[str]) -> int:
    if len(words) < 2 or words[0] not in ("make", "label", "train", *PARTS):
        sys.exit(__doc__)
    torch.set_num_threads(2)
    folder, rest = Path(words[1]).resolve(), [int(word) if word.isdigit() else word for word in words[2:]]
    if words[0] in PARTS:
        print(json.dumps(PARTS[words[0]](folder, *rest)))
        return 0
    return {"make": make, "label": label, "train": train}[words[0]](folder, *rest)


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each for each in (lerobot_label, lerobot_train, our_label, our_train, bare_label)
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
