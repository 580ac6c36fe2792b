"""What the verbs write is what the schemas and docs/file_formats.md say; a later version is refused."""

import importlib.util
import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

from milepost.annotation.store import AnnotationStore, Answer
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.formats import FORM_VERSION, FORMAT_KEY
from milepost.core.types import Curve, Progress, Segment, Signal
from milepost.datasets import open_dataset
from milepost.progress.store import ProgressStore
from milepost.progress.table import read_progress
from milepost.testing import write_example
from milepost.viewer.marks import Mark, Marks
from milepost.weights.file import read_weights_file

ROOT = Path(__file__).parents[1]
SCHEMAS = files("milepost.core") / "schemas"


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("file_formats", ROOT / "tools" / "file_formats.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def against(path: Path, name: str) -> list[str]:
    """Returns what a parquet file has that its schema lacks or says otherwise, and what it lacks that the schema promises."""
    arrow, columns = pq.read_schema(path), schema(name)["columns"]
    wrong = []
    for field in arrow:
        fits = [each for each in columns if each.get("name") == field.name or re.fullmatch(each.get("pattern", "(?!)"), field.name)]
        if [each["type"] for each in fits] != [str(field.type)]:
            wrong.append(f"{field.name}: {field.type}")
    wrong += [f"no {each['name']}" for each in columns if not each.get("optional") and each["name"] not in arrow.names]
    keys = {key.decode() for key in arrow.metadata or {}} - {"ARROW:schema"}
    assert arrow.metadata[FORMAT_KEY.encode()] == str(schema(name)["version"]).encode()
    return wrong + sorted(keys - set(schema(name)["metadata"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    write_example(root / "dots")
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object, codes: tuple[int, ...] = (0,)) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) in codes
    return capsys.readouterr().out


def test_what_label_weigh_and_advantage_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dots, progress = folder / "dots", folder / "again_progress.parquet"
    labelled = run(capsys, "label", dots, "--model", "elapsed", "--output-path", progress, "--json")
    weighed = run(capsys, "weigh", dots, "--progress", progress, "--chunk-size", 5, "--output-path", folder / "weights.parquet", "--json")
    divided = run(capsys, "advantage", dots, "--progress", progress, "--output-dir", folder / "advantages", "--json")
    for name, text in {"label": labelled, "weigh": weighed, "advantage": divided}.items():
        jsonschema.validate(json.loads(text), schema(f"{name}_output"))
    meta = folder / "advantages" / "meta"
    written = {"progress": progress, "weights": folder / "weights.parquet"}
    written |= {name: meta / f"{name}_milepost.parquet" for name in ("advantages", "returns")}
    assert {name: against(path, name) for name, path in written.items()} == {name: [] for name in written}


def test_a_progress_file_with_all_kinds_of_columns(tmp_path: Path) -> None:
    half, stages = np.full(2, 0.5, np.float32), np.full((2, 2), 0.5, np.float32)
    signals = {"raw": Signal(half, "log-probability"), "logodds": Signal(half, "nat")}
    store = ProgressStore(tmp_path / "p.parquet", {})
    store.add(
        Progress(0, {"sparse": Curve(half, stages, ("a", "b"), signals), "dense": Curve(half, signals={"far": Signal(half, "m")})}), row=0
    )
    store.finish()
    assert against(tmp_path / "p.parquet", "progress") == []


def test_a_column_without_an_entry_is_found(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "dots" / "elapsed_progress.parquet")
    pq.write_table(table.append_column("speed", table["progress_sparse"]), tmp_path / "p.parquet")
    assert against(tmp_path / "p.parquet", "progress") == ["speed: float"]


def test_what_train_and_audit_write(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--preset", "small", "--steps", 2, "--batch-size", 4]
    run(capsys, "train", folder / "dots", "--annotation-mode", "single_stage", *sizes, "--output-dir", folder / "sarm")
    evaluation = (folder / "sarm" / "evaluation.json").read_text()
    assert "NaN" not in evaluation
    jsonschema.validate(json.loads(evaluation), schema("evaluation"))
    beside = ["--output-path", folder / "several", "--device", "cpu", "--no-cache", "--json"]
    labelled = run(capsys, "label", folder / "dots", "--model", folder / "sarm", "--model", "elapsed", *beside)
    jsonschema.validate(json.loads(labelled), schema("label_several_output"))
    config = json.loads((folder / "sarm" / "config.json").read_text())
    jsonschema.validate(config, schema("config_sarm"))
    few = ["--num-episodes", 3, "--controls", "frozen_first", "--output-dir", folder / "audit"]
    printed = run(capsys, "audit", folder / "dots", "--model", "elapsed", *few, "--json", codes=(0, 1))
    assert json.loads(printed) == json.loads((folder / "audit" / "audit.json").read_text())
    jsonschema.validate(json.loads(printed), schema("audit"))


def test_what_annotate_and_the_review_page_write(folder: Path, tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path / "towels.annotations", {"dataset": "a"})
    store.add(3, {"sparse": Answer((Segment("fold", 0, 5),), replies=("{}",)), "dense": Answer(failure="no reply", notes={"asked": 2})})
    (path,) = (tmp_path / "towels.annotations").glob("episode-*.json")
    jsonschema.validate(json.loads(path.read_text()), schema("annotation"))
    marks = Marks(tmp_path / "dots.review.json", open_dataset(folder / "dots"))
    marks.set(2, Mark("drop", "slips"))
    marks.set(3, Mark(None, "look again"))
    jsonschema.validate(json.loads((tmp_path / "dots.review.json").read_text()), schema("review"))


def later(path: Path) -> Path:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, FORMAT_KEY.encode(): str(FORM_VERSION + 1).encode()}), path)
    return path


def test_a_later_version_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, progress, weights = open_dataset(folder / "dots"), tmp_path / "p.parquet", tmp_path / "w.parquet"
    pq.write_table(pq.read_table(folder / "dots" / "elapsed_progress.parquet"), progress)
    run(capsys, "weigh", "--progress", progress, "--chunk-size", 5, "--output-path", weights)
    for read, path in ((read_progress, progress), (read_weights_file, weights)):
        with pytest.raises(DataError, match="has form 2, and this release of milepost reads forms up to 1"):
            read(later(path))
    review = tmp_path / "dots.review.json"
    Marks(review, dataset).set(2, Mark("drop"))
    review.write_text(review.read_text().replace('"format": 1', '"format": 2').replace('"drop"', '"a later kind"'))
    with pytest.raises(DataError, match="has form 2"):
        Marks(review, dataset)


def test_a_version_that_is_no_number_is_refused(folder: Path, tmp_path: Path) -> None:
    table = pq.read_table(folder / "dots" / "elapsed_progress.parquet")
    pq.write_table(table.replace_schema_metadata({FORMAT_KEY: "new"}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="should be a number, got 'new'"):
        read_progress(tmp_path / "p.parquet")


def test_files_without_a_version_are_read(folder: Path, tmp_path: Path) -> None:
    """Those of earlier releases, and of others."""
    table = pq.read_table(folder / "dots" / "elapsed_progress.parquet")
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "p.parquet")
    assert len(read_progress(tmp_path / "p.parquet").index) == 171


def test_the_schemas_of_configs_are_those_of_the_code(tool) -> None:
    on_disk = {name: (SCHEMAS / f"config_{name}.json").read_text() for name in tool.CONFIGS}
    assert on_disk == {name: tool.config_schema(name) for name in tool.CONFIGS}, "python tools/file_formats.py"


def test_the_page_shows_every_schema(tool) -> None:
    text = tool.PAGE.read_text()
    assert text == tool.page(text), "python tools/file_formats.py"
    names = {path.name.removesuffix(".json") for path in SCHEMAS.iterdir()}
    assert {name for name in names if f"<!-- {name} -->" not in text and f"`{name}.json`" not in text} == set()


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "file_formats.md").read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(block, "file_formats.md", "exec"), {})
    assert "'progress_sparse'" in capsys.readouterr().out


def test_the_wheel_has_the_schemas() -> None:
    """They lie inside the package, of which the wheel takes every file."""
    assert (ROOT / "src/milepost/core/schemas/progress.json").is_file()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["src/milepost"]
    }
