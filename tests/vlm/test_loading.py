"""What is opened, and what is said about what cannot be."""

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
import transformers
from packaging.version import Version

from milepost.core.errors import DataError
from milepost.vlm import loading, memory
from milepost.vlm.loading import load_engine


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "vlm", ignore=shutil.ignore_patterns("golden.json", "clips.npz"))


def test_float32_on_a_cpu_and_half_precision_if_asked(folder):
    assert load_engine(folder).networks.dtype == torch.float32
    assert load_engine(str(folder), dtype="bfloat16").networks.dtype == torch.bfloat16


def test_bfloat16_is_near(folder, clips):
    whole, half = load_engine(folder), load_engine(folder, dtype="bfloat16")
    said = [each.score(each.clip(clips["wide"], fps=2.0), instructions=["slide the window open"]) for each in (whole, half)]
    assert abs(said[0] - said[1]).max() < 0.2


@pytest.mark.parametrize("name", ["/nowhere/at/all", "owner/no-such-model"])
def test_a_model_that_is_not_there_says_how_to_get_one(name):
    with pytest.raises(DataError, match=r"no such folder|needs the network"):
        load_engine(name)


def test_missing_weights_say_so(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"cannot be loaded: .*Give a folder"):
        load_engine(copy)


def test_incomplete_weights_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lm_head"):
        load_engine(copy)


@pytest.mark.parametrize("file", ["tokenizer.json", "video_preprocessor_config.json"])
def test_missing_files_are_named(file, copy):
    (copy / file).unlink()
    with pytest.raises(DataError, match=r"tokenizer|video_preprocessor_config"):
        load_engine(copy)


def test_newer_folders_keep_the_video_processor_elsewhere(copy, folder):
    content = json.loads((copy / "video_preprocessor_config.json").read_text())
    (copy / "video_preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"video_processor": content}))
    assert load_engine(copy).processor == load_engine(folder).processor


def test_another_family_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": config["text_config"] | {"model_type": "llama"}}))
    with pytest.raises(DataError, match="'llava' model cannot share"):
        load_engine(copy)


def test_a_family_nobody_knows_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "qwen9_vl"}))
    with pytest.raises(DataError, match="qwen9_vl"):
        load_engine(copy)


def test_quantization_names_what_it_needs(folder, monkeypatch):
    monkeypatch.setattr("milepost.vlm.loading.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install bitsandbytes"):
        load_engine(folder, quantization="4bit")
    with pytest.raises((DataError, TypeError), match="'8bit', '4bit'"):  # the tests check types before we do
        load_engine(folder, quantization="2bit")


@pytest.mark.parametrize("memory", [0, -5])
def test_memory_is_a_number_of_bytes(memory, folder):
    with pytest.raises(DataError, match="bytes above zero"):
        load_engine(folder, max_memory=memory)


def test_the_template_may_be_in_the_processors_file(copy, folder, clips):
    """Processors keep it in chat_template.json, and take it from there although the tokenizer has another."""
    config = json.loads((copy / "tokenizer_config.json").read_text())
    template = config.pop("chat_template", None) or (folder / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    for own in ({}, {"chat_template": "{{ 'of another kind' }}"}):
        (copy / "tokenizer_config.json").write_text(json.dumps(config | own))
        alone, whole = load_engine(copy), load_engine(folder)
        assert alone.tokenizer.chat_template == whole.tokenizer.chat_template
        scores = [each.score(each.clip(clips["wide"], fps=2.0), instructions=["push"], prefixes=[3]) for each in (alone, whole)]
        assert (scores[0] == scores[1]).all()


def test_a_template_that_is_no_object_is_refused(copy):
    (copy / "chat_template.json").write_text("[]")
    with pytest.raises(DataError, match=r"chat_template\.json should hold names and values, it holds a list"):
        load_engine(copy)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_fp8_weights_on_a_cpu(copy, folder, clips, precision):
    """As the published FP8 checkpoints: blocks of 128 with a scale each; everything else is bfloat16."""
    from safetensors.torch import load_file, save_file

    weights = {name: weight.bfloat16() for name, weight in load_file(copy / "model.safetensors").items()}
    projections = [name for name in weights if "language_model.layers" in name and name.endswith("_proj.weight")]
    for name in projections:
        scale = weights[name].float().abs().max() / 448  # the largest number of float8_e4m3fn
        weights[name] = (weights[name].float() / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text())
    kept = {"weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "model.visual"]}
    config |= {"dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"} | kept}
    (copy / "config.json").write_text(json.dumps(config))
    if Version(transformers.__version__) < Version("5.20"):  # early releases read FP8 on a GPU alone
        with pytest.raises(DataError, match="pip install triton" if find_spec("triton") is None else "cannot be loaded") as refusal:
            load_engine(copy, dtype=precision)
        assert "\n" not in str(refusal.value)
        return
    coarse = load_engine(copy, dtype=precision)
    assert coarse.precision == ("float32" if precision == "auto" else precision)
    fine = load_engine(folder, dtype=precision)  # computes in the same precision, which rounds otherwise on another CPU
    said = [each.score(each.clip(clips["wide"], fps=2.0), instructions=["slide the window open"]) for each in (coarse, fine)]
    assert 0 < abs(said[0] - said[1]).max() < 0.3


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(folder, monkeypatch) -> None:
    monkeypatch.setattr(loading, "free_memory", lambda device: 1e5)
    monkeypatch.setattr(transformers.Qwen3VLForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(DataError, match=r"need 0\.\d GB on the CPU, 0\.0 GB are free: take a smaller checkpoint"):
        loading.load_engine(folder)


def test_free_memory_is_what_the_system_says() -> None:
    assert 1e6 < memory.free_memory("cpu") <= float("inf")
    assert memory.free_memory("mps") == float("inf")
