"""CLIP and SigLIP encoders: LeRobot's numbers from a tiny model, transformers' own forward, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from milepost.core.errors import DataError
from milepost.encoders.clip import ClipEncoder
from milepost.encoders.encoder import Encoder, load_encoder
from milepost.encoders.pixels import PixelImages

FOLDER = Path(__file__).parents[1] / "data" / "clip_tiny"
GOLDEN = np.load(FOLDER / "golden.npz")
TEXTS = json.loads((FOLDER / "golden.json").read_text())["texts"]


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    return ClipEncoder.load(str(FOLDER))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "copy"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved random SigLIP with a word-level tokenizer."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    text = {**small, "vocab_size": 8, "max_position_embeddings": 6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "push": 2, "the": 3, "block": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    config = {"size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("case", ["0", "1"])
def test_image_features_are_lerobots(clip, case):
    features = clip.images(GOLDEN[f"frames_{case}"])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, GOLDEN[f"image_features_{case}"], rtol=0, atol=1e-5)


def test_text_features_are_lerobots(clip):
    with pytest.warns(UserWarning, match="first 77 tokens"):  # the third is longer than CLIP reads
        features = clip.text(TEXTS)
    np.testing.assert_allclose(features, GOLDEN["text_features"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(clip.text([TEXTS[0].upper()]), features[:1])  # the tokenizer lower-cases


def test_a_sentence_has_the_same_numbers_whatever_stands_beside_it(clip):
    alone = ClipEncoder.load(str(FOLDER)).text([TEXTS[1]])
    np.testing.assert_array_equal(clip.text([TEXTS[0], TEXTS[1]])[1:], alone)


def test_sizes_and_protocol(clip):
    assert (clip.width, clip.text_width) == (512, 512)
    assert isinstance(clip, Encoder)
    assert isinstance(load_encoder("pixels"), PixelImages)
    assert isinstance(load_encoder(str(FOLDER)), ClipEncoder)


def test_batches_are_joined_in_order(clip, rng):
    images = rng.integers(0, 256, (5, 40, 50, 3), dtype=np.uint8)
    whole = clip.images(images)
    clip.batch, before = 2, clip.batch
    parts = clip.images(images)
    clip.batch = before
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)


def test_siglip_gives_what_transformers_own_forward_gives(siglip, rng):
    encoder = ClipEncoder.load(str(siglip))
    model = transformers.SiglipModel.from_pretrained(siglip).eval()
    images = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)  # the right size already, so only the network is compared
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = torch.tensor([[2, 3, 4, 0, 0, 0], [2, 1, 0, 0, 0, 0]])
    with torch.no_grad():
        # No attention mask: SigLIP reads its padding, up to its full length.
        out = model(input_ids=ids, pixel_values=pixels)
        scaled = [out.vision_model_output.pooler_output.numpy(), out.text_model_output.pooler_output.numpy()]
    np.testing.assert_allclose(encoder.images(images), scaled[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.text(["push the block", "push it"]), scaled[1], rtol=0, atol=1e-5)
    assert (encoder.width, encoder.text_width) == (16, 16)
    assert encoder.images(rng.integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)).shape == (1, 16)


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_drifts_little_and_has_its_own_name(clip, precision, most):
    half = ClipEncoder.load(str(FOLDER), precision=precision)
    exact, near = clip.images(GOLDEN["frames_0"]), half.images(GOLDEN["frames_0"])
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < most * exact.std()
    assert half.name == f"{clip.name}-{precision}"
    np.testing.assert_array_equal(half.text(TEXTS[:1]), clip.text(TEXTS[:1]))  # text stays exact


def test_the_name_follows_the_weights(clip, copy):
    assert ClipEncoder.load(str(copy)).name.removeprefix("copy") == clip.name.removeprefix("clip_tiny")
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    weights["visual_projection.weight"][0, 0] += 1e-3
    safetensors.torch.save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert ClipEncoder.load(str(copy)).name.removeprefix("copy") != clip.name.removeprefix("clip_tiny")


def test_the_name_follows_the_settings(clip, copy):
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (copy / "config.json").write_text(json.dumps(config))
    assert ClipEncoder.load(str(copy)).name.removeprefix("copy") != clip.name.removeprefix("clip_tiny")


def test_missing_weights_are_named(copy):
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    safetensors.torch.save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"incomplete.*visual_projection\.weight"):
        ClipEncoder.load(str(copy))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match="cannot be loaded"):
        ClipEncoder.load(str(copy))


def test_a_truncated_file_is_refused(copy):
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be loaded"):
        ClipEncoder.load(str(copy))


def test_another_kind_of_model_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match="'bert' model is not of the CLIP or SigLIP type"):
        ClipEncoder.load(str(copy))


@pytest.mark.parametrize(("name", "says"), [("/nowhere/clip", "no such folder"), ("nobody/nothing", "cannot be loaded")])
def test_an_unknown_name_is_refused(name, says):
    with pytest.raises(DataError, match=says):
        load_encoder(name)


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match=r"milepost\[clip\]"):
        ClipEncoder.load(str(FOLDER))


def test_code_in_a_model_folder_is_never_run(copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert ClipEncoder.load(str(copy)).width == 512
    assert not (tmp_path / "ran").exists()


def test_features_that_are_not_numbers_are_refused(copy):
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = torch.nan
    safetensors.torch.save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="NaN"):
        ClipEncoder.load(str(copy)).images(GOLDEN["frames_0"])
