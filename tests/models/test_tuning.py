"""Fine-tuning: the heads alone and LoRA, of tiny random models. What is learnt is saved, loads alone, and goes on after an interruption."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import milepost
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.types import Episode
from milepost.models.robometer.tuning import RobometerTuner
from milepost.models.roboreward.config import GRADES
from milepost.models.roboreward.tuning import RoboRewardTuner
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import TrainResult
from milepost.models.tuning.run import Tuning, fine_tune
from milepost.models.tuning.tuner import clips_of
from milepost.models.zero_shot.model import sharing_vlms
from milepost.testing import dot_episodes, tiny_robometer, tiny_vlm, write_dots
from milepost.vlm import answer_hidden, load_engine, load_frame_engine, marks_hidden
from milepost.vlm.adapters import PREFIX, learnt_hashes
from models.test_robometer import ASKED, FORMAT, frames_of
from models.test_sarm import shortened

try:
    import peft
except ModuleNotFoundError:
    peft = None
BASES = {"robometer": tiny_robometer, "roboreward": tiny_vlm}
needs_peft = pytest.mark.skipif(peft is None, reason="peft is not installed: pip install 'milepost[finetune]'")
MODES = [pytest.param("lora", marks=needs_peft), "head_only"]
QUICK = {"steps": 6, "batch_size": 4, "lr": 1e-2, "clips_per_episode": 3, "holdout": 0.25}


@functools.cache
def base(name: str) -> Path:
    import tempfile

    return BASES[name](tempfile.mkdtemp())


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "dots"
    write_dots(folder, dot_episodes(8, failing=4))
    return folder


def tune(dots: Path, folder: Path, name: str, mode: str, **changes: object) -> TrainResult:
    settings = {"vlm_name": str(base(name)), mode: True, **QUICK, **changes}
    return milepost.train(dots, folder, model=name, **settings)


def learnt(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def without(episodes: list[Episode], **changes: object) -> list[Episode]:
    return [dataclasses.replace(each, **changes) for each in episodes]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BASES)
def test_the_held_out_loss_falls_and_the_folder_loads_alone(dots: Path, tmp_path: Path, name: str, mode: str) -> None:
    result = tune(dots, tmp_path / "model", name, mode, steps=24)
    assert result.losses["after"] < result.losses["before"] - 0.002
    assert len(result.held_out) == 2
    again, episode = milepost.load_model(tmp_path / "model"), milepost.open_dataset(dots)[0]
    untuned = milepost.load_model(name, vlm_name=str(base(name)))
    np.testing.assert_allclose(again.predict(episode).value, result.model.predict(episode).value, atol=1e-6)
    assert np.abs(untuned.predict(episode).value - again.predict(episode).value).max() > 1e-4
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pt", ".bin", ".pkl")]
    card, report = (tmp_path / "model" / "README.md").read_text(), json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert f"Their loss was {result.losses['before']:.4f}" in card
    assert report["held_out_loss"][1].startswith("after ")
    assert str(base(name)) in card
    assert name in report["held_out_table"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BASES)
def test_an_interrupted_run_goes_on_to_the_same_weights(dots: Path, tmp_path: Path, name: str, mode: str) -> None:
    changes = {"holdout": 0.0, "clips_per_episode": 2}

    def on_stage(stage: str) -> object:
        def tick(done: int, total: int) -> None:
            if stage == "train" and done == 3:
                raise KeyboardInterrupt

        return tick

    tune(dots, tmp_path / "whole", name, mode, **changes)
    with pytest.raises(KeyboardInterrupt):
        tune(dots, tmp_path / "parts", name, mode, on_stage=on_stage, **changes)
    assert not learnt(tmp_path / "parts")
    tune(dots, tmp_path / "parts", name, mode, **changes)
    assert learnt(tmp_path / "parts") == learnt(tmp_path / "whole")
    logs = [(tmp_path / part / "log.jsonl").read_text() for part in ("whole", "parts")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BASES)
def test_in_half_precision_what_is_learnt_stays_float32(dots: Path, tmp_path: Path, name: str, mode: str) -> None:
    result = tune(dots, tmp_path / "model", name, mode, steps=2, holdout=0.0, mixed_precision="bf16")
    assert result.model.engine.precision == "bfloat16"
    for file in (tmp_path / "model").glob("*.safetensors"):
        assert {weight.dtype for key, weight in load_file(file).items() if key != "answers.tokens"} == {torch.float32}
    episode = milepost.open_dataset(dots)[0]
    again = milepost.load_model(tmp_path / "model").predict(episode).value
    np.testing.assert_allclose(again, result.model.predict(episode).value, atol=1e-6)
    assert "mixed_precision=bfloat16" in (tmp_path / "model" / "README.md").read_text()


@needs_peft
def test_peft_reads_the_adapter_itself(dots: Path, tmp_path: Path, rng) -> None:
    result = tune(dots, tmp_path / "model", "roboreward", "lora", lora_rank=3, lora_alpha=5, holdout=0.0)
    network = transformers.Qwen3VLForConditionalGeneration.from_pretrained(base("roboreward"), dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(network, tmp_path / "model")
    about = theirs.peft_config["default"]
    assert (about.r, about.lora_alpha, about.base_model_name_or_path) == (3, 5, str(base("roboreward").resolve()))
    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert len(saved) == 2 * 4 * 2  # two layers, four projections, two matrices
    read = peft.get_peft_model_state_dict(theirs)
    for key, weight in saved.items():
        torch.testing.assert_close(read[key], weight)
        assert key.startswith(PREFIX)
        assert "visual" not in key
    ids = torch.arange(20)[None]
    ours = result.model.engine.networks.model(input_ids=ids).logits
    torch.testing.assert_close(theirs(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-4)
    with theirs.disable_adapter():
        assert not torch.allclose(theirs(input_ids=ids).logits, ours, atol=1e-4)


def test_hidden_states_are_those_that_curves_are_read_from(rng) -> None:
    engine, frames = load_frame_engine(base("robometer"), layout=FORMAT), frames_of(rng, 5)
    with torch.no_grad():
        hidden = marks_hidden(engine, frames, text=ASKED)
        progress = engine.heads["progress"](hidden.float()).numpy()
    read = engine.read(frames, text=ASKED, paths=[tuple(range(n + 1)) for n in range(5)])["progress"]
    np.testing.assert_allclose(progress, read, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_an_answer_is_the_one_that_a_grade_is_read_from(rng, count: int) -> None:
    engine, frames = load_engine(base("roboreward")), frames_of(rng, count)
    clip = engine.clip(frames, fps=1.0)
    with torch.no_grad():
        hidden, tokens = answer_hidden(engine, clip, instruction="pick up", answers=GRADES)
        logprobs = engine.networks.log_probabilities(hidden)[0, tokens].numpy()
        few = engine.networks.answer_logits(hidden, tokens)[0].log_softmax(-1).numpy()
    read = engine.score(clip, instructions=["pick up"], answers=GRADES, prefixes=[count])[0, 0]
    np.testing.assert_allclose(logprobs, read, atol=1e-5)
    np.testing.assert_allclose(few, read - np.logaddexp.reduce(read), atol=1e-5)


@pytest.mark.parametrize("name", BASES)
def test_failures_matter(dots: Path, tmp_path: Path, name: str) -> None:
    """With the failures a failed attempt ends lower than without them, by the same steps from the same checkpoint."""
    dataset = milepost.open_dataset(dots)
    good = [number for number in range(8) if dataset[number].success]
    failed = next(each for each in dataset if not each.success)
    changes = {"steps": 60, "holdout": 0.0, "progress_from": "time", "validation": 0.0}
    both = tune(dots, tmp_path / "both", name, "head_only", **changes)
    alone = tune(dataset.only(good), tmp_path / "alone", name, "head_only", **changes)
    assert any("no episode learnt from failed" in words for words in alone.doubts)
    assert not both.doubts
    bad = [number for number in range(8) if not dataset[number].success]
    failures = tune(dataset.only(bad), tmp_path / "failures", name, "head_only", **{**changes, "steps": 2})
    assert any("no episode learnt from succeeded: this teaches no progress above 0" in words for words in failures.doubts)
    signal = "success" if name == "robometer" else "grade"
    ends = [np.nanmean(each.model.predict(failed).main.signals[signal].values) for each in (both, alone)]
    assert ends[0] < ends[1]


def test_stages_are_learnt_where_they_are_annotated(dots: Path, tmp_path: Path) -> None:
    staged = tune(dots, tmp_path / "stages", "robometer", "head_only", holdout=0.0)
    timed = tune(dots, tmp_path / "time", "robometer", "head_only", holdout=0.0, progress_from="time")
    assert learnt(tmp_path / "stages") != learnt(tmp_path / "time")
    assert staged.train_episodes == timed.train_episodes == tuple(range(8))


@pytest.mark.parametrize("tuner", [RobometerTuner(), RoboRewardTuner()], ids=["robometer", "roboreward"])
def test_outcomes_that_nobody_wrote_down_are_said(tmp_path: Path, tuner: object) -> None:
    episodes = without(dot_episodes(3), facts={}, columns={}, segments={})
    config = tuner.MODEL.config_class(vlm_name=str(base(tuner.MODEL.config_class.name)))
    settings = TrainConfig(steps=1, batch_size=2), Tuning(clips_per_episode=2, holdout=0.0)
    result = fine_tune(tuner, tuner.MODEL(config), episodes, settings, folder=tmp_path, own={})
    assert result.doubts[0].startswith("no episode learnt from says whether it succeeded")
    clips = clips_of(tuner, result.model, episodes, None, 2, None)
    if isinstance(tuner, RobometerTuner):
        assert all(np.isnan(clip.targets["success"]).all() for clip in clips)
    else:
        assert [np.flatnonzero(clip.targets["allowed"]).tolist() for clip in clips] == [[0], [4]] * 3


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("robometer", [], "--head-only or with --lora; give one"),
        ("robometer", ["--lora", "--head-only"], "give one of them"),
        ("roboreward", ["--head-only", "--lora-rank", "4"], "mean nothing with --head-only"),
        ("robometer", ["--lora", "--lora-rank", "0"], "--lora-rank should be at least 1, got 0"),
        ("robometer", ["--lora", "--lora-alpha", "0"], "--lora-alpha should be at least 1, got 0"),
        ("robometer", ["--lora", "--lora-alpha", "-2"], "--lora-alpha should be at least 1, got -2"),
        ("robometer", ["--head-only", "--encoder", "pixels"], "--encoder means nothing to a Robometer"),
        ("robometer", ["--head-only", "--preset", "small"], "no preset"),
        ("robometer", ["--head-only", "--mixed-precision", "fp16"], "not in fp16"),
        ("robometer", ["--head-only", "--image-key", "observation.images.nose"], "nose"),
        ("robometer", ["--head-only", "--clips-per-episode", "1"], "at least 2"),
        ("topreward", ["--head-only"], "TOPReward is zero-shot"),
        ("gvl", ["--lora"], "GVL is zero-shot"),
        ("sarm", ["--head-only"], "--head-only means nothing to a model of type sarm"),
        ("sarm", ["--lora-rank", "4"], "--lora-rank means nothing to a model of type sarm"),
    ],
)
def test_what_cannot_be_asked_for(dots: Path, tmp_path: Path, capsys, name: str, arguments: list[str], words: str) -> None:
    if "--lora" in arguments and "--head-only" not in arguments and name == "robometer" and peft is None:
        pytest.skip("peft is not installed")
    more = ["--vlm-name", str(base("robometer"))] if name in BASES else []
    assert main(["train", str(dots), "--model", name, "--output-dir", str(tmp_path / "model"), *more, *arguments]) != 0
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "model").exists()


def test_a_server_cannot_be_fine_tuned(dots: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="on a server cannot be fine-tuned"):
        tune(dots, tmp_path, "roboreward", "head_only", base_url="http://localhost:8000/v1")
    with pytest.raises(ValueError, match="a server does not have what was learnt"):
        milepost.RoboRewardConfig(tuned="heads", tuned_on="0", base_url="http://localhost:8000/v1")
    with pytest.raises(ValueError, match="clips_per_episode"):
        Tuning(clips_per_episode=0)


def test_without_peft_the_message_says_what_to_install(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise DataError("LoRA adapters need peft: pip install 'milepost[finetune]'")

    if peft is not None:
        monkeypatch.setattr("milepost.models.tuning.settings.require_peft", missing)
    with pytest.raises(DataError, match=r"need peft: pip install 'milepost\[finetune\]'"):
        tune(dots, tmp_path, "robometer", "lora")


def test_wrong_checkpoints_are_named(dots: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenizer lacks"):
        tune(dots, tmp_path / "a", "robometer", "head_only", vlm_name=str(base("roboreward")))
    with pytest.raises(DataError, match="no such folder"):
        tune(dots, tmp_path / "b", "robometer", "head_only", vlm_name=str(tmp_path / "nowhere"))
    assert not (tmp_path / "a").exists()


def test_a_fine_tuned_model_is_no_checkpoint_to_start_from(dots: Path, tmp_path: Path) -> None:
    tune(dots, tmp_path / "model", "robometer", "head_only", steps=1, holdout=0.0)
    with pytest.raises(DataError, match="is a fine-tuned model; start from its checkpoint"):
        tune(dots, tmp_path / "again", "robometer", "head_only", vlm_name=str(tmp_path / "model"))


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    tuner, config = RobometerTuner(), milepost.RobometerConfig(vlm_name=str(base("robometer")))
    for parts in (1, 2, 4):
        settings = TrainConfig(steps=3, batch_size=4, accumulate=parts, lr=1e-3), Tuning(clips_per_episode=2, holdout=0.0)
        fine_tune(tuner, tuner.MODEL(config), dot_episodes(3), settings, folder=tmp_path / str(parts), own={})
    whole, *others = (load_file(tmp_path / str(parts) / "heads.safetensors") for parts in (1, 2, 4))
    for other in others:
        for name, weight in whole.items():
            torch.testing.assert_close(other[name], weight, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="accumulate must divide batch_size"):
        TrainConfig(batch_size=4, accumulate=3)


def test_episodes_that_teach_nothing(tmp_path: Path) -> None:
    tuner, config = RobometerTuner(), milepost.RobometerConfig(vlm_name=str(base("robometer")))
    settings = TrainConfig(steps=1, batch_size=2), Tuning(clips_per_episode=2, holdout=0.0)
    faults = {"no episode is left to fine-tune on, of 3.*no task in words": {"task": ""}, "of 0": None, "have one frame": 1}
    for words, changes in faults.items():
        if isinstance(changes, dict):
            episodes = without(dot_episodes(3), **changes)
        else:
            episodes = [shortened(each, changes) for each in dot_episodes(3)] if changes else []
        with pytest.raises(DataError, match=words):
            fine_tune(tuner, tuner.MODEL(config), episodes, settings, folder=tmp_path / "model", own={})
    write_dots(tmp_path / "bare", without(dot_episodes(3), segments={}))
    with pytest.raises(DataError, match="use --progress-from time"):
        tune(tmp_path / "bare", tmp_path / "model", "robometer", "head_only", progress_from="stages")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_that_is_gone_or_another_is_said(dots: Path, tmp_path: Path, mode: str) -> None:
    here = tmp_path / "base"
    shutil.copytree(base("robometer"), here)
    tune(dots, tmp_path / "model", "robometer", mode, vlm_name=str(here), holdout=0.0)
    episode = milepost.open_dataset(dots)[0]
    before = milepost.load_model(tmp_path / "model").predict(episode).value
    here.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"was fine-tuned from the checkpoint '.*base', which it needs.*--vlm-name"):
        milepost.load_model(tmp_path / "model").predict(episode)
    moved = milepost.load_model(tmp_path / "model", vlm_name=str(tmp_path / "moved"))
    np.testing.assert_array_equal(moved.predict(episode).value, before)
    tiny_robometer(here, seed=1)
    with pytest.raises(DataError, match="other weights than those that the model in"):
        milepost.load_model(tmp_path / "model").predict(episode)


@pytest.mark.parametrize(
    ("file", "words"),
    [("heads.safetensors", "is missing"), pytest.param("adapter_model.safetensors", "is missing", marks=needs_peft)],
)
def test_a_file_that_is_missing_is_named(dots: Path, tmp_path: Path, file: str, words: str) -> None:
    tune(dots, tmp_path / "model", "robometer", "lora" if "adapter" in file else "head_only", steps=1, holdout=0.0)
    (tmp_path / "model" / file).unlink()
    with pytest.raises(DataError, match=f"{file} {words}"):
        milepost.load_model(tmp_path / "model")


def edit(path: Path, **changes: object) -> None:
    """Changes entries of a JSON file; None takes one out."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None or name not in changes}))


@pytest.mark.parametrize("name", BASES)
def test_a_folder_that_was_edited_is_refused_by_the_file(dots: Path, tmp_path: Path, name: str) -> None:
    """A config without its `tuned` would leave what lies beside it unread; heads or an adapter of another model would give its numbers."""
    modes = ["head_only"] if peft is None else ["head_only", "lora"]
    for mode in modes:
        for seed in (0, 1):
            tune(dots, tmp_path / f"{mode}{seed}", name, mode, steps=1, holdout=0.0, seed=seed)
    folder = tmp_path / "head_only0"
    before, heads = (folder / "config.json").read_text(), (folder / "heads.safetensors").read_bytes()

    def refused(where: Path, words: str) -> None:
        with pytest.raises(DataError, match=words):
            milepost.load_model(where)

    edit(folder / "config.json", tuned=None)
    refused(folder, r"learnt heads.safetensors, and it says tuned=missing; set it to 'heads' again")
    edit(folder / "config.json", tuned=None, tuned_on=None, learnt=None)
    refused(folder, r"heads.safetensors is not of the model in config.json beside it")
    (folder / "config.json").write_text(before)
    edit(folder / "config.json", learnt=None)
    refused(folder, "not which files were learnt")
    (folder / "config.json").write_text(before)
    shutil.copy(tmp_path / "head_only1" / "heads.safetensors", folder)
    refused(folder, r"heads.safetensors is not the one that this model was saved with")
    (folder / "heads.safetensors").write_bytes(heads)
    milepost.load_model(folder)
    if peft is None:
        return
    lora = tmp_path / "lora0"
    edit(lora / "config.json", tuned="heads")
    refused(lora, r"learnt adapter_config.json and adapter_model.safetensors.*tuned='heads'; set it to 'lora' again")
    edit(lora / "config.json", tuned="lora")
    edit(lora / "adapter_config.json", base_model_name_or_path="elsewhere")  # where peft looks for the checkpoint changes no number
    milepost.load_model(lora)
    edit(lora / "adapter_config.json", lora_alpha=64)
    refused(lora, r"adapter_config.json is not the one that this model was saved with")
    shutil.copy(tmp_path / "lora1" / "adapter_model.safetensors", folder)
    refused(folder, r"adapter_model.safetensors is not of the model in config.json")
    milepost.load_model(tmp_path / "lora1").save_pretrained(folder)  # another model in its place leaves nothing of the old one
    assert milepost.load_model(folder).config.tuned == "lora"
    assert (folder / "heads.safetensors").exists() == (name == "robometer")


@needs_peft
@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("use_dora", True, "use_dora=True; only a plain LoRA"),
        ("r", 5, "does not fit the model"),
        ("target_modules", ["q_proj"], "as a text"),
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(dots: Path, tmp_path: Path, field: str, value: object, words: str) -> None:
    tune(dots, tmp_path / "model", "roboreward", "lora", steps=1, holdout=0.0)
    path = tmp_path / "model" / "adapter_config.json"
    edit(path, **{field: value})
    edit(tmp_path / "model" / "config.json", learnt=learnt_hashes(tmp_path / "model"))  # as if it had been saved so
    with pytest.raises(DataError, match=words):
        milepost.load_model(tmp_path / "model").predict(milepost.open_dataset(dots)[0])


def test_weights_that_are_no_numbers_are_named(dots: Path, tmp_path: Path) -> None:
    tune(dots, tmp_path / "model", "robometer", "head_only", steps=1, holdout=0.0)
    weights = load_file(tmp_path / "model" / "heads.safetensors")
    weights["progress.0.bias"][0] = torch.nan
    save_file(weights, tmp_path / "model" / "heads.safetensors")
    edit(tmp_path / "model" / "config.json", learnt=learnt_hashes(tmp_path / "model"))
    with pytest.raises(DataError, match=r"NaN or infinite weights: progress.0.bias"):
        milepost.load_model(tmp_path / "model").predict(milepost.open_dataset(dots)[0])


def test_labels_of_two_fine_tuned_models_are_of_two_models(dots: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        tune(dots, tmp_path / str(seed), "robometer", "head_only", steps=2, holdout=0.0, seed=seed)
    first, second = (milepost.load_model(tmp_path / str(seed)).identity() for seed in (0, 1))
    assert first["learnt"] != second["learnt"]
    assert {**first, "learnt": ""} == {**second, "learnt": ""}


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_shares_the_vlm_is_left_as_it_was(dots: Path, tmp_path: Path, mode: str) -> None:
    tune(dots, tmp_path / "model", "roboreward", mode, holdout=0.0)
    episode = milepost.open_dataset(dots)[0]

    def curves() -> list[np.ndarray]:
        first = milepost.load_model("roboreward", vlm_name=str(base("roboreward").resolve()))
        tuned = milepost.load_model(tmp_path / "model")
        return [first.predict(episode).value, tuned.predict(episode).value, first.predict(episode).value]

    alone = curves()
    with sharing_vlms():
        together = curves()
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[0], together[2])
    assert np.abs(together[0] - together[1]).max() > 1e-5


def test_the_command_says_the_loss_and_label_uses_the_folder(dots: Path, tmp_path: Path, capsys) -> None:
    model, file = tmp_path / "model", tmp_path / "progress.parquet"
    options = ["--vlm-name", str(base("robometer")), "--steps", "4", "--batch-size", "4", "--clips-per-episode", "2", "--holdout", "0.25"]
    assert main(["train", str(dots), "--model", "robometer", "--head-only", "--output-dir", str(model), "--device", "cpu", *options]) == 0
    assert "held-out loss: " in capsys.readouterr().out
    assert main(["label", str(dots), "--model", str(model), "--output-path", str(file), "--device", "cpu", "--num-prefixes", "2"]) == 0
    assert file.exists()
