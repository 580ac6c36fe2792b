"""`milepost annotate` from end to end: killed and resumed, corrected, drawn, published; and SARM trains on what it wrote."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from annotator import FPS, NAMES, Annotator, Words, dataset_of, truth_of
from builders import TOP, WRIST, build_dataset
from milepost.annotation.sources import read_annotations
from milepost.datasets.reader import open_dataset
from milepost.datasets.subtask_index import read_subtask_index
from milepost.datasets.transaction import JOURNAL
from milepost.testing import Fault, chat_server
from test_cli import assert_refused, milepost

DATA = Path(__file__).parent / "data"
LENGTHS = (60, 71, 82, 93, 104, 115)
TRUTH = truth_of(LENGTHS, seed=3)
SPARSE, DENSE = (",".join(NAMES[head]) for head in ("sparse", "dense"))
BOTH = ("--sparse-subtasks", SPARSE, "--dense-subtasks", DENSE)
QUIET = ("--num-visualizations", 0, "--video-key", TOP)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("source") / "cubes", LENGTHS, TRUTH)


@pytest.fixture
def dataset(source, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(source, tmp_path / "cubes"))


def ask(server, *more: object) -> tuple[object, ...]:
    return ("--base-url", server.url, "--model", "tiny", *QUIET, *more)


def files(root: Path) -> dict[str, bytes]:
    """All but what a kill amid a write leaves: a hidden temporary file, which nothing reads."""
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def annotated(dataset: Path, annotator: Annotator, *more: object):
    with chat_server(model=Words(), script=annotator) as server:
        return milepost("annotate", dataset, *BOTH, *ask(server, *more))


def test_the_whole_of_it(dataset, source, tmp_path) -> None:
    run = annotated(dataset, Annotator(TRUTH, LENGTHS), "--num-visualizations", 2, "--json")
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["annotated"] == {"sparse": [*range(6)], "dense": [*range(6)]}
    assert read_annotations(dataset) == TRUTH
    assert open_dataset(dataset).stages["dense"].names == NAMES["dense"]
    before, after = files(source), files(dataset)
    assert set(said["written"]) == {name for name in after if after[name] != before.get(name)}
    assert len(said["written"]) == 3
    drawn = sorted(path.name for path in (tmp_path / "subtask_viz").iterdir())
    assert drawn == ["episode_000000_subtasks.png", "episode_000001_subtasks.png"]
    assert said["store"] == str(tmp_path / "cubes.annotations")
    assert read_annotations(tmp_path / "cubes.annotations") == TRUTH

    again = Annotator(TRUTH, LENGTHS)  # the same command once more: nobody is asked, nothing changes
    run = annotated(dataset, again)
    assert run.returncode == 0, run.stderr
    assert not again.asked
    assert "nothing, all of it was there" in run.stdout
    assert files(dataset) == after


def test_failures_are_listed_and_the_rest_is_written(dataset) -> None:
    annotator = Annotator(TRUTH, LENGTHS, fault=lambda e, h, a: {1: "chatter", 4: "400"}.get(e, ""))
    run = annotated(dataset, annotator)
    assert run.returncode == 1
    assert "episode 1, sparse: no annotation, after 3 answers: no JSON" in run.stderr
    assert "episode 4: not answered" in run.stderr
    assert "--retry-failed" in run.stderr
    assert set(read_annotations(dataset)) == {0, 2, 3, 5}
    better = Annotator(TRUTH, LENGTHS)
    assert annotated(dataset, better).returncode == 1  # what was given up is not asked again by itself, what was not answered is
    assert {each[0] for each in better.asked} == {4}
    run = annotated(dataset, better, "--retry-failed")
    assert run.returncode == 0, run.stderr
    assert {each[0] for each in better.asked} == {1, 4}
    assert read_annotations(dataset) == TRUTH


@pytest.mark.parametrize("after", [3, 10])
def test_killed_and_repeated(dataset, source, tmp_path, after) -> None:
    """SIGKILL when so many questions have come: no finished episode is asked again, and all files end as if nothing had happened."""
    whole = Path(shutil.copytree(source, tmp_path / "whole" / "cubes"))
    noisy = Annotator(TRUTH, LENGTHS, noise_s=0.1)
    assert annotated(whole, noisy).returncode == 0
    annotator, process = Annotator(TRUTH, LENGTHS, noise_s=0.1), []
    annotator.on_question = lambda count: os.kill(process[0].pid, signal.SIGKILL) if count == after else None
    with chat_server(model=Words(), script=annotator) as server:
        words = [str(each) for each in ("annotate", dataset, *BOTH, *ask(server, "--num-workers", 2))]
        process.append(subprocess.Popen([sys.executable, "-m", "milepost", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE))
        process[0].communicate(timeout=120)
        assert process[0].returncode == -signal.SIGKILL
        store = dataset.with_name("cubes.annotations")
        done = {(n, head) for n, heads in (read_annotations(store) if store.is_dir() else {}).items() for head in heads}
        assert len(done) >= after - 4  # at most those in flight are lost
        annotator.asked.clear()
        annotator.on_question = lambda count: None
        run = milepost(*words)
    assert run.returncode == 0, run.stderr
    assert not done & {each[:2] for each in annotator.asked}
    assert files(dataset) == files(whole)
    assert files(store) == files(tmp_path / "whole" / "cubes.annotations")


def test_killed_while_it_writes(dataset, source, tmp_path) -> None:
    """Half of the files are renamed: the same command finishes that first, and asks nobody."""
    whole = Path(shutil.copytree(source, tmp_path / "whole" / "cubes"))
    assert annotated(whole, Annotator(TRUTH, LENGTHS)).returncode == 0
    assert annotated(dataset, Annotator(TRUTH, LENGTHS)).returncode == 0
    shutil.rmtree(dataset)
    shutil.copytree(source, dataset)
    script = f"""
import sys
from pathlib import Path
from milepost.cli.entry import main
plain, renamed = Path.replace, []
def replace(self, target):
    if ".milepost-new" in self.name:
        renamed.append(target)
        if len(renamed) == 3: import os; os._exit(9)
    return plain(self, target)
Path.replace = replace
main({["annotate", str(dataset), "--export", "--num-visualizations", "0"]!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 9
    assert (dataset / JOURNAL).is_file()
    nobody = Annotator(TRUTH, LENGTHS)
    run = annotated(dataset, nobody)
    assert run.returncode == 0, run.stderr
    assert not nobody.asked
    assert files(dataset) == files(whole)


def test_ctrl_c_keeps_what_is_done(dataset) -> None:
    annotator, process = Annotator(TRUTH, LENGTHS), []
    annotator.on_question = lambda count: os.kill(process[0].pid, signal.SIGINT) if count == 8 else None
    with chat_server(model=Words(), script=annotator) as server:
        words = [str(each) for each in ("annotate", dataset, *BOTH, *ask(server, "--num-workers", 2))]
        process.append(subprocess.Popen([sys.executable, "-m", "milepost", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE))
        _, said = process[0].communicate(timeout=60)
    assert process[0].returncode == 130, said
    assert b"the same command goes on from here" in said
    assert b"Traceback" not in said
    assert not read_annotations(dataset)
    assert len(read_annotations(dataset.with_name("cubes.annotations"))) >= 2


def test_each_kind_is_skipped_by_itself(dataset) -> None:
    first = Annotator(TRUTH, LENGTHS)
    with chat_server(model=Words(), script=first) as server:
        assert milepost("annotate", dataset, "--sparse-subtasks", SPARSE, *ask(server, "--episodes", "0-2")).returncode == 0
    shutil.rmtree(dataset.with_name("cubes.annotations"))  # the dataset alone decides
    second = Annotator(TRUTH, LENGTHS)
    run = annotated(dataset, second, "--skip-existing")
    assert run.returncode == 0, run.stderr
    assert {each[:2] for each in second.asked} == {(n, h) for n in range(6) for h in NAMES} - {(n, "sparse") for n in range(3)}
    assert read_annotations(dataset) == TRUTH


def test_nothing_is_replaced_unless_asked(dataset) -> None:
    meta = dataset / "meta"
    assert annotated(dataset, Annotator(TRUTH, LENGTHS)).returncode == 0
    shutil.rmtree(dataset.with_name("cubes.annotations"))
    before = files(meta)
    nobody = Annotator(TRUTH, LENGTHS, noise_s=0.2)
    assert_refused(annotated(dataset, nobody), "0-5", "--skip-existing", "--overwrite")
    assert not nobody.asked
    assert_refused(milepost("annotate", dataset, *QUIET), "--overwrite")  # not even by the one stage, "task"
    assert files(meta) == before
    assert annotated(dataset, nobody, "--overwrite").returncode == 0
    assert files(meta) != before
    with chat_server(model=Words(), script=nobody) as server:
        other = ("--sparse-subtasks", "reach,lift,put", "--episodes", "0", "--overwrite", "--store", "other")
        assert_refused(milepost("annotate", dataset, *other, *ask(server)), "not on the list: place")


def test_an_episode_without_an_answer_leaves_the_old_list_in_place_and_says_so(dataset) -> None:
    assert milepost("annotate", dataset, *QUIET).returncode == 0
    before = files(dataset / "meta")
    run = annotated(dataset, Annotator(TRUTH, LENGTHS, fault=lambda episode, head, attempt: "400" if episode == 3 else ""), "--overwrite")
    assert run.returncode == 1
    assert files(dataset / "meta") == before
    assert "episode 3: not answered" in run.stderr
    assert "nothing is written into" in run.stderr
    assert "1 episode without a sparse answer (3)" in run.stderr
    assert_refused(milepost("annotate", dataset, "--export", "--overwrite"), "nothing is written into")
    run = annotated(dataset, Annotator(TRUTH, LENGTHS), "--overwrite")
    assert run.returncode == 0, run.stderr
    assert read_annotations(dataset) == TRUTH


def test_other_settings_are_other_answers(dataset) -> None:
    assert annotated(dataset, Annotator(TRUTH, LENGTHS)).returncode == 0
    assert_refused(annotated(dataset, Annotator(TRUTH, LENGTHS), "--repeats", 2), "answers to other questions")
    assert annotated(dataset, Annotator(TRUTH, LENGTHS), "--repeats", 2, "--restart", "--overwrite").returncode == 0
    assert dataset.with_name("cubes.annotations").joinpath("sparse.1").is_dir()
    asked = Annotator(TRUTH, LENGTHS)
    assert_refused(annotated(dataset, asked, "--repeats", 2, "--restart"), "--overwrite")
    assert not asked.asked
    assert annotated(dataset, asked, "--repeats", 2, "--restart", "--overwrite").returncode == 0
    assert len(asked.asked) == 24


def test_out_to_a_file_corrected_and_back(dataset, tmp_path) -> None:
    assert annotated(dataset, Annotator(TRUTH, LENGTHS)).returncode == 0
    table = tmp_path / "stages.csv"
    run = milepost("annotate", dataset, "--to-file", table)
    assert run.returncode == 0, run.stderr
    assert "48 segments of 6 episodes" in run.stdout
    assert_refused(milepost("annotate", dataset, "--to-file", table), "may hold corrections")
    lines = table.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("2,sparse,lift"))
    cells = [line.split(",") for line in lines]
    moved = float(cells[place][4]) - 0.5
    cells[place][4], cells[place][6] = f"{moved:.3f}", ""
    cells[place + 1][3], cells[place + 1][5] = f"{moved:.3f}", ""
    table.write_text("\n".join(",".join(line) for line in cells))
    run = milepost("annotate", dataset, "--import", table)
    assert run.returncode == 0, run.stderr
    found = read_annotations(dataset)
    assert found[2]["sparse"][1].stop == found[2]["sparse"][2].start == TRUTH[2]["sparse"][1].stop - 10
    assert {n: found[n] for n in found if n != 2} == {n: TRUTH[n] for n in TRUTH if n != 2}
    assert_refused(annotated(dataset, Annotator(TRUTH, LENGTHS)), "episodes 2, which would be replaced")  # a correction is not lost again
    cells[place][4] = f"{moved - 1:.3f}"
    table.write_text("\n".join(",".join(line) for line in cells))
    run = milepost("annotate", dataset, "--import", table)
    assert run.returncode == 2
    assert "episode 2, sparse: there is a gap of 1.00 s" in run.stderr
    assert read_annotations(dataset) == found


def test_into_a_copy_of_meta(dataset, source, tmp_path) -> None:
    run = annotated(dataset, Annotator(TRUTH, LENGTHS), "--output-path", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert files(dataset) == files(source)
    assert read_annotations(tmp_path / "out") == TRUTH
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"meta"}
    assert annotated(dataset, Annotator(TRUTH, LENGTHS), "--output-path", tmp_path / "out").returncode == 0
    assert_refused(milepost("annotate", dataset, "--export", "--output-path", DATA / "dataset_v3"), "another dataset")


def test_one_stage_asks_nobody_and_trains(dataset) -> None:
    run = milepost("annotate", dataset, *QUIET)
    assert run.returncode == 0, run.stderr
    assert [(s.name, s.start, s.stop) for s in read_annotations(dataset)[3]["sparse"]] == [("task", 0, 93)]
    assert json.loads((dataset / "meta/temporal_proportions_sparse.json").read_text()) == {"task": 1.0}
    assert not dataset.with_name("cubes.annotations").exists()


@pytest.mark.parametrize(("version", "camera"), [("v2.1", "libx264"), ("v3.0", "png")])
def test_older_datasets_and_pictures_in_parquet(tmp_path, monkeypatch, version, camera) -> None:
    monkeypatch.chdir(tmp_path)
    lengths = (60, 71, 82)
    truth = truth_of(lengths, seed=3, failed=(1,))
    root = build_dataset(tmp_path / "old", version=version, lengths=lengths, cameras={TOP: camera}).root
    with chat_server(model=Words(), script=Annotator(truth, lengths)) as server:
        run = milepost("annotate", root, *BOTH, *ask(server, "--num-visualizations", 1))
    assert run.returncode == 0, run.stderr
    assert read_annotations(root) == truth
    assert (tmp_path / "subtask_viz" / "episode_000000_subtasks.png").is_file()


def test_dense_only(dataset) -> None:
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        run = milepost("annotate", dataset, "--dense-only", "--dense-subtasks", DENSE, *ask(server))
    assert run.returncode == 0, run.stderr
    assert {n: heads["dense"] for n, heads in TRUTH.items()} == {n: heads["dense"] for n, heads in read_annotations(dataset).items()}
    assert json.loads((dataset / "meta/temporal_proportions_sparse.json").read_text()) == {"task": 1.0}
    assert_refused(milepost("annotate", dataset, "--dense-only"), "--dense-only needs")
    assert_refused(milepost("annotate", dataset, "--dense-only", *BOTH), "no sparse stages")


@pytest.mark.parametrize("mode", ["sparse_only", "dense_only", "dual"])
def test_sarm_trains_on_it(dataset, tmp_path, mode) -> None:
    assert annotated(dataset, Annotator(TRUTH, LENGTHS, noise_s=0.1)).returncode == 0
    small = ("--preset", "small", "--annotation-mode", mode, "--steps", 2, "--device", "cpu", "--gap-s", 0.2, "--holdout", 0.2)
    run = milepost("train", dataset, "--output-dir", tmp_path / "sarm", *small)
    assert run.returncode == 0, run.stderr
    config = json.loads((tmp_path / "sarm" / "config.json").read_text())
    if mode != "dense_only":
        assert tuple(config["sparse_subtask_names"]) == NAMES["sparse"]
    if mode != "sparse_only":
        assert tuple(config["dense_subtask_names"]) == NAMES["dense"]


def test_lerobots_newer_form_if_asked(dataset) -> None:
    run = annotated(dataset, Annotator(TRUTH, LENGTHS), "--subtask-index")
    assert run.returncode == 0, run.stderr
    assert read_subtask_index(dataset, "dense") == {n: {"dense": heads["dense"]} for n, heads in TRUTH.items()}


def test_a_local_model_of_noise_is_refused_with_reasons(dataset, tmp_path) -> None:
    """The whole path on a CPU: a random Qwen3-VL talks nonsense, and every episode says why it has no annotation."""
    tiny = ("--model", DATA / "qwen3vl_tiny", "--device", "cpu", "--max-tokens", 24, "--tries", 2, "--frames-per-second", 1.0)
    run = milepost("annotate", dataset, *BOTH, *tiny, *QUIET, "--episodes", "0-1", "--json")
    assert run.returncode == 1, run.stderr
    said = json.loads(run.stdout)
    assert set(said["failed"]["sparse"]) == set(said["failed"]["dense"]) == {"0", "1"}
    assert all("after 2 answers: " in reason for found in said["failed"].values() for reason in found.values())
    assert not said["unanswered"]
    assert "reused" in run.stderr
    assert not read_annotations(dataset)
    run = milepost("annotate", dataset, *BOTH, *tiny, *QUIET, "--episodes", "0-1", "--num-workers", 2, "--restart")
    assert run.returncode == 1, "it goes on with one question at a time, and says what several GPUs need"
    assert "--num-workers 2: a local model answers one question at a time" in run.stderr


def test_wrong_cameras_and_names(dataset) -> None:
    nowhere = ("--base-url", "http://127.0.0.1:9/v1", "--num-visualizations", 0)
    assert_refused(milepost("annotate", dataset, *BOTH, "--video-key", "observation.images.front", *nowhere), "front", TOP, WRIST)
    assert_refused(milepost("annotate", dataset, "--sparse-subtasks", "a,,b", *nowhere), "commas")
    assert_refused(milepost("annotate", dataset, "--sparse-subtasks", "Grasp,grasp", *nowhere), "one name to a reader")
    assert_refused(milepost("annotate", dataset, "--export", "--to-file", "x.csv"), "give one of")
    assert_refused(milepost("annotate", dataset, "--export"), "there are no answers")
    assert_refused(milepost("annotate", dataset, "--visualize-only"), "nothing to draw")
    assert_refused(milepost("annotate", dataset, "--output-repo-id", "a/b", *BOTH, *nowhere), "--push-to-hub")


def test_names_with_commas_from_a_file(dataset, tmp_path) -> None:
    told = [{"name": "reach, slowly", "description": "the arm moves"}, {"name": "lift"}, {"name": "place", "optional": True}]
    (tmp_path / "stages.json").write_text(json.dumps(told))
    seen = []

    def script(number, body):
        seen.append(body["messages"][0]["content"][-1]["text"])
        times = iter([0, 1.1, 2.2, 3.0])
        start, claims = next(times), []
        for each, stop in zip(told, times, strict=True):
            claims.append({"name": each["name"], "start": start, "end": stop})
            start = stop
        return Fault(raw=json.dumps({"choices": [{"message": {"content": json.dumps({"subtasks": claims})}, "finish_reason": "stop"}]}))

    with chat_server(model=Words(), script=script) as server:
        run = milepost("annotate", dataset, "--sparse-file", tmp_path / "stages.json", *ask(server, "--episodes", 0))
    assert run.returncode == 0, run.stderr
    assert '1. "reach, slowly": the arm moves' in seen[0]
    assert [s.name for s in read_annotations(dataset)[0]["sparse"]] == [each["name"] for each in told]


def test_looking_without_asking(dataset, tmp_path) -> None:
    assert annotated(dataset, Annotator(TRUTH, LENGTHS, noise_s=0.3), "--repeats", 3).returncode == 0
    before = files(dataset)
    looked = ("annotate", dataset, "--visualize-only", "--visualize-type")
    for kind in ("both", "sparse"):
        run = milepost(*looked, kind, "--output-dir", tmp_path / kind)
        assert run.returncode == 0, run.stderr
    drawn = sorted(path.name for path in (tmp_path / "both").iterdir())  # which five of six hangs on the pictures' bytes, and so on Pillow
    assert len(drawn) == 5
    assert milepost(*looked, "dense", "--output-dir", tmp_path / "dense", "--episodes", drawn[0][8:14]).returncode == 0
    assert [path.name for path in (tmp_path / "dense").iterdir()] == drawn[:1]
    assert not filecmp.cmp(tmp_path / "both" / drawn[0], tmp_path / "dense" / drawn[0], shallow=False)
    assert files(dataset) == before


# The Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(source, tmp_path, monkeypatch) -> Path:
    """The dataset in the Hub's cache as ada/cubes, its files links into blobs/; no network. Returns the snapshot."""
    repo = tmp_path / "cache" / "datasets--ada--cubes"
    snapshot = repo / "snapshots" / COMMIT
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        blob, link = repo / "blobs" / str(number), snapshot / path.relative_to(source)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return snapshot


def test_a_hub_dataset_is_never_edited(hub, tmp_path) -> None:
    before = files(hub)
    nowhere = ("--base-url", "http://127.0.0.1:9/v1", *QUIET)
    assert_refused(milepost("annotate", "ada/cubes", *BOTH, *nowhere), "--output-path", "--push-to-hub")
    assert_refused(milepost("annotate", hub, *BOTH, *nowhere), "in the Hub's cache")
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        run = milepost("annotate", "ada/cubes", *BOTH, *ask(server, "--output-path", tmp_path / "mine"))
    assert run.returncode == 0, run.stderr
    assert files(hub) == before
    assert read_annotations(tmp_path / "mine") == TRUTH
    assert not any(path.is_symlink() for path in (tmp_path / "mine").rglob("*"))
    assert read_annotations(tmp_path / "ada--cubes.annotations") == TRUTH


@pytest.mark.parametrize("given", [(), ("--output-repo-id", "ada/cubes-annotated")])
def test_publishing_only_if_asked(hub, tmp_path, monkeypatch, given) -> None:
    """One commit of meta/ alone, to the repository named, after that was seen to hold the same dataset."""
    sent: list[dict] = []
    repo = given[1] if given else "ada/cubes"

    def upload_folder(**options: object) -> None:
        root = Path(options["folder_path"])
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        sent.append({**options, "sent": set(filter_repo_objects(names, allow_patterns=options["allow_patterns"]))})
        sent[-1]["annotations"] = read_annotations(root)

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    if given:
        other = tmp_path / "cache" / "datasets--ada--cubes-annotated"
        shutil.copytree(tmp_path / "cache" / "datasets--ada--cubes", other)
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS)) as server:
        run = milepost("annotate", "ada/cubes", *BOTH, *ask(server, "--push-to-hub", *given))
    assert run.returncode == 0, run.stderr
    assert [(each["repo_id"], each["repo_type"]) for each in sent] == [(repo, "dataset")]
    shares = {f"meta/temporal_proportions_{head}.json" for head in NAMES}
    assert sent[0]["sent"] == shares | {"meta/episodes/chunk-000/file-000.parquet"}
    assert sent[0]["annotations"] == TRUTH
    assert f"https://huggingface.co/datasets/{repo}" in run.stdout
    assert not read_annotations(hub)


def test_publishing_needs_the_same_dataset(hub, dataset) -> None:
    nowhere = ("--base-url", "http://127.0.0.1:9/v1", *QUIET, "--push-to-hub")
    assert_refused(milepost("annotate", dataset, *BOTH, *nowhere), "--output-repo-id")
    assert_refused(
        milepost("annotate", DATA / "dataset_v3", *BOTH, *nowhere, "--output-repo-id", "ada/cubes"), "another one", "total_frames"
    )
    assert_refused(milepost("annotate", dataset, *BOTH, *nowhere, "--output-repo-id", "ada/none"), "ada/none")


def test_evaluating_annotations(dataset, tmp_path) -> None:
    """Noise of at most 0.2 s against the simulator's truth; a file and a store are as good as the dataset."""
    assert annotated(dataset, Annotator(TRUTH, LENGTHS, noise_s=0.2)).returncode == 0
    assert milepost("annotate", dataset, "--to-file", tmp_path / "stages.json").returncode == 0
    store = dataset.with_name("cubes.annotations")
    said = [
        milepost("evaluate", dataset, "--annotations", given, "--against", "truth", "--json")
        for given in (dataset, tmp_path / "stages.json", store)
    ]
    assert [run.returncode for run in said] == [0, 0, 0], said[0].stderr
    assert said[0].stdout == said[1].stdout == said[2].stdout
    found = json.loads(said[0].stdout)
    true = {n: heads["sparse"] for n, heads in TRUTH.items()}
    ours = {n: heads["sparse"] for n, heads in read_annotations(dataset).items()}
    errors = [abs(a.start - b.start) / FPS for n in true for a, b in zip(ours[n][1:], true[n][1:], strict=True)]
    assert found["measures"]["border error, s"]["value"] == pytest.approx(np.mean(errors))
    assert found["measures"]["border F1 within 0.5 s"]["value"] == 1
    assert found["measures"]["same stages"]["value"] == 1
    run = milepost("evaluate", "--annotations", dataset, "--against", store)
    assert run.returncode == 0, run.stderr
    assert "frame accuracy" in run.stdout
    assert "1.000" in run.stdout
    run = milepost("evaluate", dataset, "--annotations", dataset, "--against", "truth", "--head-mode", "dense")
    assert_refused(run, "sparse")
    assert_refused(milepost("evaluate", "--annotations", tmp_path / "stages.json", "--against", "truth"), "DATASET")
    assert_refused(milepost("evaluate", dataset, "--annotations", dataset), "--against")
    assert_refused(milepost("evaluate"), "DATASET")


def test_writing_per_frame_stages_does_not_lock_the_store(dataset) -> None:
    """--subtask-index rewrites the tables of frames: the answers are to the same pictures all the same."""
    annotator = Annotator(TRUTH, LENGTHS)
    assert annotated(dataset, annotator, "--subtask-index", "--episodes", "0-1").returncode == 0
    annotator.asked.clear()
    run = annotated(dataset, annotator, "--subtask-index", "--overwrite")
    assert run.returncode == 0, run.stderr
    assert {each[0] for each in annotator.asked}.isdisjoint({0, 1})
