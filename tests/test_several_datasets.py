"""Several datasets in one command: each gets what it would get alone, one that cannot be used costs no other, a model is loaded once."""

import io
import json
import shutil
from pathlib import Path

import pytest

from milepost.cli import several_datasets
from milepost.core.errors import DataError
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.zero_shot import model as zero_shot
from models.test_contract import VLM
from test_cli import FIXTURE, assert_refused, milepost
from test_label_command import SMALL, STAGES

TOP = "observation.images.top"


def copies(folder: Path, *names: str) -> list[Path]:
    return [Path(shutil.copytree(FIXTURE, folder / name, copy_function=shutil.copyfile)) for name in names]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return copies(tmp_path, "one", "two", "three")


@pytest.fixture(scope="module")
def sarm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sarm"
    SARMModel(SARMConfig(annotation_mode="dual", **SMALL, **STAGES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def topreward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "topreward"
    TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM))).save_pretrained(folder)
    return folder


def damage(dataset: Path) -> None:
    (dataset / "meta" / "info.json").write_text("{")


def other_camera(dataset: Path) -> None:
    """Gives the dataset's camera another name, in meta/ and on disk."""
    info = json.loads((dataset / "meta" / "info.json").read_text())
    cameras = [name for name in info["features"] if name.startswith("observation.images.")]
    for name in cameras:
        info["features"][f"{name}_of_old"] = info["features"].pop(name)
    (dataset / "meta" / "info.json").write_text(json.dumps(info))


def test_files_are_those_of_separate_commands_and_a_model_is_loaded_once(
    three: list[Path], sarm: Path, topreward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    plain, engine = SARMModel.from_pretrained, zero_shot.load_engine
    monkeypatch.setattr(SARMModel, "from_pretrained", lambda *words, **more: loads.append("sarm") or plain(*words, **more))
    monkeypatch.setattr(zero_shot, "load_engine", lambda *words, **more: loads.append("vlm") or engine(*words, **more))
    some = ("--model", sarm, "--model", topreward, "--episodes", "0,4", "--device", "cpu", "--no-cache")
    run = milepost("label", *three, *some)
    assert run.returncode == 0, run.stderr
    assert sorted(loads) == ["sarm", "vlm"]
    names = ("sarm_progress.parquet", "topreward_progress.parquet")
    together = {(path, name): (path / name).read_bytes() for path in three for name in names}
    for path in three:
        for name in names:
            (path / name).unlink()
        assert milepost("label", path, *some).returncode == 0
        for name in names:
            assert (path / name).read_bytes() == together[path, name]


def test_a_damaged_dataset_costs_no_other(tmp_path: Path, sarm: Path) -> None:
    five = copies(tmp_path, "a", "b", "c", "d", "e")
    damage(five[2])
    other_camera(five[3])
    run = milepost("label", *five, "--model", sarm, "--episodes", "0", "--device", "cpu", "--json")
    assert run.returncode == 1
    rows = json.loads(run.stdout)["datasets"]
    assert [Path(row["dataset"]).name for row in rows] == ["a", "b", "c", "d", "e"]
    assert [(five[place] / "sarm_progress.parquet").exists() for place in range(5)] == [True, True, False, False, True]
    assert rows[0]["path"] == str(five[0] / "sarm_progress.parquet")
    assert "info.json" in rows[2]["error"]
    assert "camera" in rows[3]["error"]
    lines = run.stderr.splitlines()
    assert [str(five[2]) in lines[0], str(five[3]) in lines[1]] == [True, True], "both are named before any work begins"
    assert all(line.startswith("before the work begins") for line in lines[:2])
    assert lines[-1] == f"2 of 5 datasets left out: {five[2]}, {five[3]}"
    again = milepost("label", *five, "--model", sarm, "--episodes", "0", "--device", "cpu")
    assert again.stderr.count("labelled already") == 3


def test_all_are_left_out(tmp_path: Path) -> None:
    run = milepost("label", tmp_path / "none", tmp_path / "nor_this", "--model", "elapsed")
    assert run.returncode == 2
    assert "2 of 2 datasets left out" in run.stderr


def test_one_folder_for_all_outputs_and_weights_from_it(three: list[Path], tmp_path: Path) -> None:
    made = tmp_path / "made"
    before = sorted(path for each in three for path in each.rglob("*"))
    assert milepost("label", *three, "--model", "elapsed", "--output-path", made).returncode == 0
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*.parquet")) == [
        "one/elapsed_progress.parquet", "three/elapsed_progress.parquet", "two/elapsed_progress.parquet",
    ]  # fmt: skip
    run = milepost("weigh", *three, "--progress", made, "--chunk-size", 5, "--json")
    assert run.returncode == 0, run.stderr
    assert [row["path"] for row in json.loads(run.stdout)["datasets"]] == [str(made / each.name / "weights.parquet") for each in three]
    assert before == sorted(path for each in three for path in each.rglob("*"))
    assert_refused(milepost("weigh", *three, "--progress", made / "one" / "elapsed_progress.parquet"), "--progress", "folder")
    assert_refused(milepost("weigh", *three, "--figure", tmp_path / "f.png"), "--figure", "one dataset")
    assert_refused(milepost("label", *three, "--model", "elapsed", "--output-path", tmp_path / "x.parquet"), "--output-path", "folder")


def test_weights_beside_each(three: list[Path]) -> None:
    assert milepost("label", *three[:2], "--model", "elapsed").returncode == 0
    run = milepost("weigh", *three, "--chunk-size", 5)
    assert run.returncode == 1
    assert "progress files beside" in run.stderr
    assert [(each / "weights.parquet").exists() for each in three] == [True, True, False]


def test_names_that_are_the_same(tmp_path: Path) -> None:
    first, second = copies(tmp_path / "x", "towels")[0], copies(tmp_path / "y", "towels")[0]
    assert_refused(milepost("label", first, second, "--model", "elapsed", "--output-path", tmp_path / "out"), str(first), "both write into")
    assert not (tmp_path / "out").exists()
    assert milepost("label", first, second, "--model", "elapsed").returncode == 0
    (tmp_path / "link").symlink_to(first)
    assert_refused(milepost("info", first, tmp_path / "link"), "given twice", str(tmp_path / "link"))


def test_info_of_several(three: list[Path], tmp_path: Path) -> None:
    damage(three[1])
    alone = milepost("info", three[0], "--quick", "--json")
    run = milepost("info", *three, tmp_path / "none", "--quick", "--json")
    rows = json.loads(run.stdout)["datasets"]
    assert run.returncode == 1
    assert {key: value for key, value in rows[0].items() if key != "dataset"} == json.loads(alone.stdout)
    assert "no folder" in rows[3]["error"]
    shown = milepost("info", three[0], three[2], "--quick")
    assert shown.returncode == 0
    assert shown.stdout.count("no errors") == 2
    assert f"dataset 2 of 2: {three[2]}" in shown.stdout


def test_a_list_file(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "of.txt").write_text(f"# all of them\n../one\n\n  {three[1]}  # the second\n")
    run = milepost("info", "--datasets-file", lists / "of.txt", "--quick", "--json")
    assert [Path(row["dataset"]).resolve() for row in json.loads(run.stdout)["datasets"]] == three[:2]
    run = milepost("info", three[2], f"--datasets_file={lists / 'of.txt'}", "--quick", "--json")
    assert [Path(row["dataset"]).resolve() for row in json.loads(run.stdout)["datasets"]] == three
    (lists / "of.txt").write_text("../one")
    run = milepost("label", "--model", "elapsed", "--datasets-file", lists / "of.txt", "--json")
    assert len(json.loads(run.stdout)["datasets"]) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{three[0]}\n{three[2]}\n"))
    assert len(json.loads(milepost("info", "--quick", "--json", "--datasets-file", "-").stdout)["datasets"]) == 2
    (lists / "of.txt").write_text("# none\n")
    assert_refused(milepost("info", "--datasets-file", lists / "of.txt"), "names no dataset")
    assert_refused(milepost("info", "--datasets-file", lists / "nothing.txt"), "cannot be read")
    (lists / "of.txt").write_bytes(b"\xff\xfe\x00")
    assert_refused(milepost("info", "--datasets-file", lists / "of.txt"), "UTF-8")


def test_names_in_a_list(tmp_path: Path) -> None:
    (tmp_path / "ada" / "here").mkdir(parents=True)
    (tmp_path / "list.txt").write_text("ada/push\nada/here\ns3://bucket/towels\n/data/towels#2\n")
    assert several_datasets.listed(str(tmp_path / "list.txt")) == [
        "ada/push", str(tmp_path / "ada" / "here"), "s3://bucket/towels", "/data/towels#2",
    ]  # fmt: skip


def test_a_full_disk_ends_the_command(three: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **more: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("milepost.cli.info.datasets.validate", full)
    assert_refused(milepost("info", *three), "no space left")
    monkeypatch.setattr("milepost.cli.info.datasets.validate", lambda *words, **more: (_ for _ in ()).throw(DataError("broken")))
    assert milepost("info", *three).returncode == 2


def test_other_cameras_are_named_before_the_work_of_a_model_for_one_dataset(
    tmp_path: Path, sarm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SARMModel, "is_for_one_dataset", property(lambda self: True))
    first, second = copies(tmp_path, "a", "b")
    other_camera(second)
    made = tmp_path / "made"
    run = milepost("label", first, second, "--model", sarm, "--episodes", "0", "--device", "cpu", "--output-path", made)
    assert run.returncode == 1
    assert run.stderr.splitlines()[0].startswith(f"before the work begins: {second} is left out")
    assert [each.name for each in made.iterdir()] == ["a"]


def test_a_dataset_that_fails_at_its_turn_leaves_no_empty_folder(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: object, *more: object) -> int:
        raise DataError("it broke at its turn")

    monkeypatch.setattr("milepost.cli.label._label_dataset", fail)
    run = milepost("label", *three[:2], "--model", "elapsed", "--output-path", tmp_path / "made")
    assert (run.returncode, "it broke at its turn" in run.stderr) == (2, True)
    assert not (tmp_path / "made").exists()


def test_a_dataset_that_is_twice_in_a_list_is_named_with_both_lines(three: list[Path], tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text(f"# mine\none\ntwo\n\n{three[0]}  # again\n")
    assert_refused(milepost("info", "--datasets-file", names), "twice: one on line 2", f"{three[0]} on line 5; leave one out")


def test_an_address_of_a_file_in_a_list_is_decoded(tmp_path: Path) -> None:
    first, second = copies(tmp_path, "my towels", "50%25")
    names = tmp_path / "list.txt"
    names.write_text(f"{first.as_uri()}\nfile://{second}\n")
    assert several_datasets.listed(str(names)) == [f"file://{first}", f"file://{second}"]
    assert milepost("info", "--datasets-file", names).returncode in (0, 1)
    assert milepost("info", first.as_uri(), "--quick").returncode == 0  # on the command line too
