"""What each verb prints with --json is JSON, without NaN, and as its schema in the package says."""

import ast
import dataclasses
import json
import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

from milepost import sim
from milepost.cli import demo
from milepost.cli.entry import VERBS, command_of, main
from milepost.cli.taught import taught_by
from milepost.core import to_json
from milepost.datasets import open_dataset
from milepost.metrics import EpisodeScore, summarise
from milepost.models.training.checkpoints import write_mark
from milepost.models.training.config import TrainConfig
from milepost.models.training.loop import _earlier_result
from milepost.models.training.tracking import LOG, Log, Tracking
from milepost.testing import write_example
from milepost.weights.config import RabcConfig
from milepost.weights.loader import SampleWeights

SOURCE = Path(__file__).parents[1] / "src" / "milepost"
SCHEMAS = files("milepost.core") / "schemas"
ALL = {path.name.removesuffix(".json"): json.loads(path.read_text()) for path in SCHEMAS.iterdir()}


def strict(text: str) -> Any:
    """Returns the value of a JSON text, which may have no NaN: Python's parser takes it."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_example(tmp_path_factory.mktemp("json") / "dots")
    return next(tmp_path_factory.getbasetemp().glob("json*/dots"))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def run(name: str, *words: object, codes: tuple[int, ...] = (0,)) -> Any:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        assert code in codes, err
        value = strict(out)
        jsonschema.validate(value, ALL[name])
        return value

    return run


def unknown_summary():
    nothing = math.nan
    return summarise([EpisodeScore(0, "", "", None, nothing, nothing, nothing, nothing, nothing)], np.random.default_rng(0))


def test_info(dots: Path, printed) -> None:
    alone = printed("info_output", "info", dots, "--quick")
    both = printed("datasets_output", "info", dots, dots.parent / "none", "--quick", codes=(1,))["datasets"]
    assert both[0] == {"dataset": str(dots)} | alone
    assert both[1].keys() == {"dataset", "error"}


def test_evaluate(dots: Path, tmp_path: Path, printed) -> None:
    copy = tmp_path / "copy_progress.parquet"
    copy.write_bytes((dots / "elapsed_progress.parquet").read_bytes())
    one = printed("evaluate_output", "evaluate", dots, "--progress", copy)
    assert {"success", "events"} < one.keys()
    two = printed("evaluate_several_output", "evaluate", dots, "--progress", dots / "elapsed_progress.parquet", copy)
    assert set(two["files"]) == {"elapsed", "copy"}


def test_annotate_and_evaluate_of_annotations(tmp_path: Path, printed) -> None:
    """Without a list of stages no model is asked: one stage is the whole episode."""
    dots, stages = tmp_path / "dots", tmp_path / "stages.json"
    write_example(dots)
    asked = ["annotate", dots, "--num-visualizations", 0]
    assert printed("annotate_output", *asked, "--overwrite")["annotated"]["sparse"] == [*range(6)]
    assert main(["annotate", str(dots), "--to-file", str(stages)]) == 0
    assert printed("annotate_import_output", "annotate", dots, "--import", stages)["episodes"] == [*range(6)]
    agreement = printed("evaluate_annotations_output", "evaluate", dots, "--annotations", dots, "--against", stages)
    assert len(agreement["episodes"]) == 6


def test_compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed) -> None:
    lines = [
        {"seed": seed, "task": "drawer-open-v3", "share": 0.8, "arm": arm, "success": [1, 0], "train_s": 1.0, "trial_s": 1.0}
        for seed in (0, 1)
        for arm in ("uniform", "rabc-true")
    ]
    monkeypatch.setattr(sim, "run", lambda *_, **__: lines)
    (entry,) = printed("compare_output", "compare", "--arms", "rabc-true", "--output-dir", tmp_path)
    assert set(entry["arms"]) == {"uniform", "rabc-true"}


def test_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed) -> None:
    """An unknown number is null: no episode of these has an outcome."""
    result = SimpleNamespace(summaries={"sarm": unknown_summary()})
    monkeypatch.setattr(sim, "require_renderer", lambda: None)
    monkeypatch.setattr(demo, "Journey", lambda *_, **__: SimpleNamespace(run=lambda: result))
    assert printed("demo_output", "demo", "--output-dir", tmp_path)["sarm"]["auc"]["value"] is None


def without_schema(verbs: dict[str, set[str]]) -> set[str]:
    """Returns the verbs with --json that no schema names. verbs: name -> its options."""
    written_by = [each.get("written_by", "") for each in ALL.values()]
    return {verb for verb, options in verbs.items() if "json" in options and not any(f"`{verb} --json`" in text for text in written_by)}


def test_each_verb_with_json_has_a_schema() -> None:
    verbs = {verb: {field.name for field in dataclasses.fields(command_of(verb).Args)} for verb in VERBS}
    assert sum("json" in options for options in verbs.values()) >= 9
    assert without_schema(verbs) == set()
    assert without_schema({**verbs, "measure": {"json"}}) == {"measure"}


def test_every_schema_is_json_schema() -> None:
    for name, each in ALL.items():
        if "columns" not in each:
            jsonschema.Draft202012Validator.check_schema(each)
            assert "type" in each, name


HASHED = {
    "datasets/fingerprints.py", "datasets/remote.py", "encoders/clip.py", "encoders/resize.py",
    "models/training/loop.py", "sim/compare/config.py", "sim/compare/experiment.py", "sim/dataset.py", "testing/contract.py",
    "viewer/saving.py", "vlm/adapters.py",
}  # fmt: skip
"""Texts that are hashed or compared, and never written."""
OF_LEROBOT = {
    "datasets/annotations.py", "datasets/copy.py", "datasets/episode_columns.py", "datasets/parquet.py", "datasets/subtask_index.py",
    "datasets/writer.py",
}  # fmt: skip
"""Content of files that LeRobot defines; the numbers in its statistics may be NaN, and LeRobot reads no null there."""
OTHERS = {"serving/robometer.py", "vlm/replies.py", "viewer/export.py"}
"""Words for messages; texts without a number."""
OF_TESTS = {"testing/robometer.py", "testing/server.py", "testing/tiny.py"}


def calls_that_may_write_nan() -> Iterator[str]:
    """Yields the files with a json.dumps that does not refuse NaN."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.dumps" and "allow_nan" not in {k.arg for k in node.keywords}:
                yield path.relative_to(SOURCE).as_posix()


def test_no_json_has_nan() -> None:
    """Use `to_json`, which makes an unknown number null, or `allow_nan=False` where every number is known."""
    assert set(calls_that_may_write_nan()) == HASHED | OF_LEROBOT | OTHERS | OF_TESTS


def test_the_files_of_a_training_have_null_for_an_unknown_number(tmp_path: Path) -> None:
    with Log(tmp_path, Tracking(), start=0, key="a", settings={}) as log:
        log.write({"step": 1, "loss": math.nan})
    assert strict((tmp_path / LOG).read_text()) == {"step": 1, "loss": None}
    done = {"steps": 1, "kept": 1, "scores": {"loss": math.nan}, "precision": "no", "processes": 1}
    write_mark(tmp_path, "a", done)
    result = _earlier_result(tmp_path, TrainConfig(device="cpu"), "a")
    assert result is not None
    assert math.isnan(result.scores["loss"])
    strict("".join(path.read_text() for path in tmp_path.glob("run.json")))


def test_statistics_of_weights_without_a_known_delta(tmp_path: Path) -> None:
    weights = SampleWeights(np.arange(3), np.ones(3, np.float32), statistics={"delta_mean": math.nan, "num_frames": 0})
    weights.save(tmp_path / "w.parquet", RabcConfig(), {})
    again = SampleWeights.load(tmp_path / "w.parquet").get_stats()
    assert again["num_frames"] == 0
    assert math.isnan(again["delta_mean"])


def test_an_old_evaluation_with_nan_is_read(dots: Path, tmp_path: Path) -> None:
    dataset = open_dataset(dots)
    about = {"dataset": dataset.name, "train_episodes": [0], "held_out": [1], "held_out_table": {"sarm": {"auc": math.nan}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(about))
    assert "NaN" in (tmp_path / "evaluation.json").read_text()
    assert taught_by(tmp_path, dataset, {0, 1})[0] == {0}


def test_json_of_several_lines() -> None:
    assert to_json({"b": math.inf, "a": 1}, indent=1, sort_keys=True) == '{\n "a": 1,\n "b": null\n}'
