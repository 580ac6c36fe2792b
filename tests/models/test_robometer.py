"""Robometer: its numbers are those of transformers alone, protocol by protocol, from both layouts; and what cannot be loaded is named."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import milepost
from milepost.core.errors import DataError, UnreadableError
from milepost.core.types import Curve
from milepost.models.robometer.config import FORMAT, LEROBOT_FRAMES
from milepost.models.robometer.model import evenly
from milepost.testing import dot_episodes, tiny_robometer
from milepost.vlm.head_files import load_frame_engine
from milepost.vlm.layers import PatchProduct, multiply_patches
from milepost.vlm.loading import load_engine
from models.test_contract import robometer_folder
from models.test_contract import tiny_robometer as model_of

TASK = "pick up the red block"
ASKED = (
    "The task for the robot is 'pick up the red block'. Given the trajectory video, predict the task progress at each frame, how far along "
    "the robot is towards completing the task, a float between 0 and 1, where 0 is the starting state and 1 is when the task is completed. "
    "If the robot is not performing the same task, predict 0 progress."
)


def frames_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Pictures of a size that the model keeps: 64 x 96."""
    return rng.integers(0, 256, (count, 8, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


@functools.cache
def published() -> tuple:
    """The checkpoint's tokenizer and network, as transformers loads them, and its weights."""
    folder = robometer_folder()
    network = transformers.Qwen3VLModel.from_pretrained(folder, dtype=torch.float32)
    return transformers.AutoTokenizer.from_pretrained(folder), network.eval(), load_file(folder / "model.safetensors")


def inputs(frames: np.ndarray) -> dict[str, torch.Tensor]:
    """What the published processor makes of images that are each followed by a mark; here without torchvision, from its rules."""
    tokenizer, network, _ = published()
    rows, columns = frames.shape[1] // 16, frames.shape[2] // 16
    pads = "<|image_pad|>" * (rows * columns // 4)
    shown = "".join(f"Picture {n + 1}: <|vision_start|>{pads}<|vision_end|><|prog_token|>" for n in range(len(frames)))
    ids = torch.tensor([tokenizer.encode(f"<|im_start|>user\n{ASKED}{shown}<|im_end|>\n", add_special_tokens=False)])
    pixels = (frames / 255.0 - 0.5) / 0.5
    patches = pixels.reshape(len(frames), rows // 2, 2, 16, columns // 2, 2, 16, 3).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    twice = np.stack([patches, patches], axis=6)  # an image fills a group of two frames
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == network.config.image_token_id).int(),
        "pixel_values": torch.tensor(twice.reshape(len(frames) * rows * columns, -1), dtype=torch.float32),
        "image_grid_thw": torch.tensor([[1, rows, columns]] * len(frames)),
    }


@torch.inference_mode()
def alone(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Progress and success at each of the frames, in one pass of the published forward."""
    tokenizer, network, weights = published()
    asked = inputs(frames)
    hidden = network(**asked).last_hidden_state[0]
    marks = hidden[asked["input_ids"][0] == tokenizer.convert_tokens_to_ids("<|prog_token|>")]
    assert len(marks) == len(frames)

    def head(name: str) -> torch.Tensor:
        w = {part: weights[f"{name}.{part}"] for part in ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")}
        inner = torch.nn.functional.linear(marks, w["0.weight"], w["0.bias"])
        inner = torch.nn.functional.layer_norm(inner, inner.shape[-1:], w["1.weight"], w["1.bias"])
        return torch.nn.functional.linear(torch.nn.functional.gelu(inner), w["4.weight"], w["4.bias"])

    progress = head("progress_head").softmax(-1) @ torch.linspace(0, 1, 10)
    return progress.numpy(), head("success_head")[:, 0].sigmoid().numpy()


def asked_of(model: milepost.RobometerModel, frames: np.ndarray, fps: float) -> Curve:
    places = model.looked_at(len(frames), fps)
    return model._curves(frames[places[0]], places, [TASK], (0, len(frames)), None)[0].main


def test_published_is_one_pass_over_eight_frames(rng) -> None:
    frames = frames_of(rng, 20)
    curve = asked_of(model_of(frame_protocol="published"), frames, 10.0)
    at = [0, 3, 5, 8, 11, 14, 16, 19]
    progress, success = alone(frames[at])
    np.testing.assert_allclose(curve.value[at], progress, atol=1e-5)
    np.testing.assert_allclose(curve.signals["success"].values[at], success, atol=1e-5)
    assert np.isnan(curve.signals["success"].values).sum() == 12
    np.testing.assert_allclose(curve.value, np.interp(np.arange(20), at, progress), atol=1e-5)
    assert np.ptp(progress) > 1e-2
    assert np.ptp(success) > 1e-2


def test_lerobot_shows_each_prefix_in_four_frames(rng) -> None:
    frames = frames_of(rng, 11)
    curve = asked_of(model_of(frame_protocol="lerobot"), frames, 10.0)
    for n in range(11):
        progress, success = alone(frames[np.linspace(0, n, 4).round().astype(int)])
        assert abs(curve.value[n] - progress[-1]) <= 1e-5
        assert abs(curve.signals["success"].values[n] - success[-1]) <= 1e-5


def test_dense_shows_the_whole_attempt_so_far(rng) -> None:
    frames = frames_of(rng, 40)
    model = model_of(fps=5.0)
    at, _ = model.looked_at(40, 10.0)
    assert at.tolist() == [*range(0, 40, 2), 39]
    curve = asked_of(model, frames, 10.0)
    for n in range(1, len(at) + 1):
        picked = at[np.linspace(0, n - 1, min(n, 8)).round().astype(int)]
        progress, success = alone(frames[picked])
        assert abs(curve.value[at[n - 1]] - progress[-1]) <= 1e-5
        assert abs(curve.signals["success"].values[at[n - 1]] - success[-1]) <= 1e-5


def test_patches_are_a_matrix_product(rng) -> None:
    convolution = torch.nn.Conv3d(3, 5, (2, 4, 4), (2, 4, 4))
    patches = torch.from_numpy(rng.normal(size=(7, 3, 2, 4, 4)).astype(np.float32))
    torch.testing.assert_close(PatchProduct(convolution)(patches), convolution(patches).view(7, 5), atol=1e-6, rtol=0)
    networks = load_frame_engine(robometer_folder(), layout=FORMAT).networks
    assert isinstance(networks.tower.patch_embed.proj, PatchProduct)
    other = torch.nn.Module()
    other.register_module("patch_embed", torch.nn.Module())
    other.patch_embed.register_module("proj", torch.nn.Conv3d(3, 5, 4, stride=2))  # its windows overlap
    multiply_patches(other)
    assert isinstance(other.patch_embed.proj, torch.nn.Conv3d)


@pytest.mark.parametrize(("limit", "chain"), [(1, 0), (60, 0), (1, 100), (10**6, 0)])
def test_the_size_of_a_pass_changes_nothing(rng, limit: int, chain: int) -> None:
    frames = frames_of(rng, 12)
    paths = [tuple(evenly(n, 5)) for n in range(1, 13)]
    engine = load_frame_engine(robometer_folder(), layout=FORMAT, attention="eager")
    whole = engine.read(frames, text=ASKED, paths=paths)
    engine.budget.limits["paths"], engine.chain = limit, chain
    again = engine.read(frames, text=ASKED, paths=paths)
    for name, outputs in whole.items():
        np.testing.assert_allclose(again[name], outputs, atol=2e-5)


def test_an_image_goes_through_the_tower_once(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, frames, counts = load_frame_engine(robometer_folder(), layout=FORMAT), frames_of(rng, 12), []
    encode = engine.networks.encode_images

    def counted(rows, *, groups, grid):
        counts.append(groups)
        return encode(rows, groups=groups, grid=grid)

    monkeypatch.setattr(engine.networks, "encode_images", counted)
    paths = [tuple(np.linspace(0, n, LEROBOT_FRAMES).round().astype(int).tolist()) for n in range(12)]
    engine.read(frames, text=ASKED, paths=paths)
    assert sum(counts) == 12
    each = len(engine.pieces(ASKED, longest=2, size=(64, 96))[1][1].ids)
    nodes = {path[:end] for path in paths for end in range(1, 5)}
    assert len(nodes) < 4 * 12 * 0.65
    assert abs(engine.tokens["frames"] - len(nodes) * each) <= 20 * len(nodes)  # what is shown alike goes through the language model once


def test_both_layouts_have_the_same_numbers(rng, tmp_path: Path) -> None:
    frames, paths = frames_of(rng, 4), [(0, 1, 2, 3), (0,)]
    ours = load_frame_engine(tiny_robometer(tmp_path / "a"), layout=FORMAT).read(frames, text=ASKED, paths=paths)
    theirs = load_frame_engine(tiny_robometer(tmp_path / "b", layout="lerobot"), layout=FORMAT).read(frames, text=ASKED, paths=paths)
    for name, outputs in ours.items():
        np.testing.assert_array_equal(outputs, theirs[name])


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    model = model_of(frame_protocol="published", max_frames=3)
    model.save_pretrained(tmp_path / "model")
    again = milepost.load_model(tmp_path / "model")
    assert isinstance(again, milepost.RobometerModel)
    assert again.identity() == model.identity()
    episode = dot_episodes(1)[0]
    np.testing.assert_array_equal(again.predict(episode).value, model.predict(episode).value)
    assert again.close() == [f"{model.config.vlm_name}: these parts of the checkpoint are not used: preference head, frame pool attn"]
    assert "preference_head" in again.run_settings({})["unused"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"frame_protocol": "window"}, "frame_protocol should be"),
        ({"max_frames": 1}, "at least 2"),
        ({"frame_protocol": "lerobot", "fps": 1.0}, "fps is for"),
        ({"quantization": "4bit"}, "quantization"),
    ],
)
def test_values_that_cannot_be(fields: dict, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):  # a type checker may be first
        milepost.RobometerConfig(**fields)


def test_published_has_no_prefixes_to_choose() -> None:
    with pytest.raises(DataError, match="one pass"):
        model_of(frame_protocol="published").predict(dot_episodes(1)[0], num_prefixes=3)


def test_an_episode_that_is_too_long_stops_no_other() -> None:
    engine = load_frame_engine(robometer_folder(), layout=FORMAT).with_limit(300)
    with pytest.raises(UnreadableError, match="300 are allowed"):
        engine.read(np.zeros((2, 64, 64, 3), np.uint8), text=ASKED, paths=[(0, 1)])


Weights = dict[str, torch.Tensor]


def changed(folder: Path, change: Callable[[Weights], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


LAYER = "model.language_model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("progress_head.4.bias"), "lack progress_head.4.bias"),
        (lambda w: [w.pop(key) for key in [*w] if "_head." in key], "without the heads"),
        (lambda w: w.pop(LAYER), "incomplete, missing 1: " + LAYER),
        (lambda w: w.update({"similarity_head.0.bias": torch.zeros(2)}), "does not have: similarity_head.0.bias"),
        (lambda w: w.update({"model.audio.0.bias": torch.zeros(2)}), "does not have: model.audio.0.bias"),
        (lambda w: w.update({LAYER: w[LAYER][:5].clone()}), r"another shape.*up_proj.weight \(5, 32\), by the config \(64, 32\)"),
        (lambda w: w.update({"success_head.1.bias": torch.zeros(5)}), r"success_head.1.bias is \(5,\)"),
        (lambda w: w.update({"success_head.1.bias": torch.full((16,), torch.nan)}), "success_head.1.bias has NaN or infinite numbers"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Callable[[Weights], object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_frame_engine(changed(tiny_robometer(tmp_path), change), layout=FORMAT)


@pytest.mark.parametrize("layout", ["upstream", "lerobot"])
def test_names_with_another_beginning_are_shown(tmp_path: Path, layout: str) -> None:
    def wrap(w: Weights) -> None:
        for key in [*w]:
            w[f"module.{key}"] = w.pop(key)

    with pytest.raises(DataError, match=r"missing \d+: model.*that the architecture does not have: module\.\w"):
        load_frame_engine(changed(tiny_robometer(tmp_path, layout=layout), wrap), layout=FORMAT)


@pytest.mark.parametrize("layout", ["upstream", "lerobot"])
@pytest.mark.parametrize("name", ["roboreward", "topreward", "gvl"])
def test_a_robometer_is_no_other_model(tmp_path: Path, layout: str, name: str) -> None:
    """Its output layer still gives numbers for words, and they mean nothing."""
    folder = tiny_robometer(tmp_path, layout=layout)
    with pytest.raises(DataError, match=f"is a checkpoint of the model robometer.*--model robometer --vlm-name {folder}"):
        milepost.load_model(name, vlm_name=str(folder)).predict(dot_episodes(1)[0])
    with pytest.raises(DataError, match=f"use --model robometer --vlm-name {folder}"):
        milepost.load_model(folder)
    if layout == "upstream":
        with pytest.raises(DataError, match=r"'RFM' model.*does not answer in words"):
            load_engine(folder)


def test_without_the_hub_the_message_is_that_of_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    messages = []
    for name in ("robometer", "roboreward", "topreward"):
        with pytest.raises(DataError, match=r"the vision-language model 'some/where' cannot be loaded: .*hf download some/where") as caught:
            milepost.load_model(name, vlm_name="some/where").predict(dot_episodes(1)[0])
        messages.append(str(caught.value).partition(": ")[2])
    assert len(set(messages)) == 1
    assert ".." not in messages[0]
    with pytest.raises(DataError, match=r"config.json"):
        milepost.load_model("robometer", vlm_name=str(tmp_path)).predict(dot_episodes(1)[0])


@pytest.mark.parametrize(("head", "count"), [("progress_head", 1), ("progress_head", 100), ("success_head", 2)])
def test_heads_with_other_outputs_are_refused(tmp_path: Path, head: str, count: int) -> None:
    """Their numbers would mean something else: one output is trained as a regression, other bins have other centres."""

    def change(w: Weights) -> None:
        w.update({f"{head}.4.weight": torch.zeros((count, 16)), f"{head}.4.bias": torch.zeros(count)})

    with pytest.raises(DataError, match=f"its {head} has {count} outputs"):
        load_frame_engine(changed(tiny_robometer(tmp_path), change), layout=FORMAT)


def test_the_unused_parts_may_be_absent(tmp_path: Path) -> None:
    folder = changed(tiny_robometer(tmp_path), lambda w: [w.pop(key) for key in [*w] if key.startswith(FORMAT.unused)])
    engine = load_frame_engine(folder, layout=FORMAT)
    assert set(engine.heads) == {"progress", "success"}
    assert milepost.RobometerModel(milepost.RobometerConfig(vlm_name=str(folder)), engine).close() == []  # nothing is there to be said


@pytest.mark.parametrize("name", ["robometer", "gvl"])
def test_what_has_no_online_use_says_so(name: str) -> None:
    with pytest.raises(DataError, match=r"cannot follow an attempt frame by frame.*TOPReward, RoboReward"):
        milepost.load_model(name).reset("open the drawer", fps=10.0)


@pytest.mark.parametrize("layout", ["upstream", "lerobot"])
def test_weights_in_several_files(tmp_path: Path, layout: str) -> None:
    folder = tiny_robometer(tmp_path, layout=layout)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {key: f"part-{number % 2}.safetensors" for number, key in enumerate(weights)}
    for file in set(names.values()):
        save_file({key: value for key, value in weights.items() if names[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    load_frame_engine(folder, layout=FORMAT)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(DataError, match="outside the model's folder"):
        load_frame_engine(folder, layout=FORMAT)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tiny_robometer(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors files alone"):
        load_frame_engine(folder, layout=FORMAT)


def test_a_tokenizer_without_the_added_words_is_refused(tmp_path: Path) -> None:
    folder, other = tiny_robometer(tmp_path / "a"), tiny_robometer(tmp_path / "b", layout="lerobot") / "base"
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(other / file, folder / file)
    with pytest.raises(DataError, match=r"lacks <\|split_token\|>, .*<\|prog_token\|>"):
        load_frame_engine(folder, layout=FORMAT)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("progress_loss_type", "l2", "progress_loss_type=l2"),
        ("use_multi_image", False, "use_multi_image=False"),
        ("progress_discrete_bins", 100, "progress_discrete_bins=100"),
        ("base_model_id", None, "no tokenizer files"),
        ("base_model_id", "/nowhere/at/all", "no such folder"),
        ("vlm_config", {"model_type": "llama"}, "'llama'"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path: Path, name: str, value: object, words: str) -> None:
    folder = tiny_robometer(tmp_path, layout="lerobot")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, name: value}))
    with pytest.raises(DataError, match=words):
        load_frame_engine(folder, layout=FORMAT)


def test_a_template_that_does_not_number_images_is_refused(tmp_path: Path, rng) -> None:
    engine = load_frame_engine(tiny_robometer(tmp_path), layout=FORMAT)
    engine.tokenizer.chat_template = engine.tokenizer.chat_template.replace("add_vision_id", "false")
    with pytest.raises(DataError, match="number the images"):
        engine.read(frames_of(rng, 2), text=ASKED, paths=[(0, 1)])


def test_a_task_with_marks_is_refused(rng) -> None:
    with pytest.raises(DataError, match="prog_token"):
        load_frame_engine(robometer_folder(), layout=FORMAT).read(frames_of(rng, 2), text="stop <|prog_token|>", paths=[(0, 1)])
