"""`milepost annotate --ray`: the same answers and files as one process, one gate for the whole job, and nothing asked twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import milepost
from annotator import NAMES, Annotator, Words, dataset_of, truth_of
from builders import TOP
from milepost.annotation.sources import is_store, read_annotations
from milepost.cli.entry import main
from milepost.scale import Cluster
from milepost.testing import Fault, chat_server

LENGTHS = (60, 71, 82, 93, 104, 115, 66, 77, 88, 99)
TRUTH = truth_of(LENGTHS, seed=3)
SPARSE, DENSE = (",".join(NAMES[head]) for head in ("sparse", "dense"))
BOTH = ("--sparse-subtasks", SPARSE, "--dense-subtasks", DENSE)
TWO = ("--ray", "--actors", "2", "--cpus-per-actor", "0.5")
KEY = "sk-no-log-has-this-9b1c"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Starts one cluster for all tests of this file. The server's key is not in its environment."""
    with Cluster().joined():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("source") / "cubes", LENGTHS, TRUTH)


@pytest.fixture
def dataset(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(source, tmp_path / "cubes"))


def words_of(server: Any, dataset: Path, *more: object) -> list[str]:
    asked = ("annotate", dataset, *BOTH, "--base-url", server.url, "--model", "tiny", "--num-visualizations", 0, "--video-key", TOP)
    return [str(word) for word in (*asked, *more)]


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_same_files_as_one_process(dataset: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(shutil.copytree(source, tmp_path / "one" / "cubes"))
    codes, counts = [], []
    for folder, more in ((one, ()), (dataset, TWO)):
        annotator = Annotator(TRUTH, LENGTHS, noise_s=0.1, fault=lambda e, h, a: {1: "chatter", 4: "400", 5: "429 once"}.get(e, ""))
        with chat_server(model=Words(), script=annotator) as server:
            codes.append(main(words_of(server, folder, *more)))
        counts.append((len(annotator.asked), capsys.readouterr()))
    assert codes == [1, 1]
    assert files(one) == files(dataset)
    assert files(one.with_name("cubes.annotations")) == files(dataset.with_name("cubes.annotations"))
    (asked, before), (asked_there, after) = counts
    assert asked == asked_there
    assert before.out == after.out.replace(str(tmp_path), str(tmp_path / "one"))
    for said in (before.err, after.err):
        assert "episode 1, sparse: no annotation, after 3 answers: no JSON" in said
        assert "episode 4: not answered" in said
        assert f"{asked} requests" in said
    assert "10 episodes by" in after.err


class Watched(Annotator):
    """An annotator that knows when each request came, and how many were there at once. busy_s: what the third request is asked to wait."""

    def __init__(self, *, busy_s: float = 0.0, latency_s: float = 0.0, **settings: Any) -> None:
        super().__init__(TRUTH, LENGTHS, latency_s=latency_s, **settings)
        self.times: list[float] = []
        self.busy_s, self.busy_at = busy_s, 0.0

    def __call__(self, number: int, body: dict[str, Any]) -> Fault:
        self.times.append(time.monotonic())
        if self.busy_s and number == 2:
            self.busy_at = time.monotonic()
            return Fault(429, "slow down", {"Retry-After": str(self.busy_s)})
        return super().__call__(number, body)


def test_requests_at_once_are_those_of_the_whole_job(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotator = Watched(latency_s=0.4)
    with chat_server(model=Words(), script=annotator) as server:
        assert main(words_of(server, dataset, "--num-workers", 3, *TWO)) == 0
        assert server.most == 3
    assert read_annotations(dataset) == TRUTH
    assert "10 episodes by 2 processes" in capsys.readouterr().err


def test_a_busy_server_slows_all_processes(dataset: Path) -> None:
    annotator = Watched(busy_s=3.0, latency_s=0.1)
    with chat_server(model=Words(), script=annotator) as server:
        assert main(words_of(server, dataset, "--num-workers", 4, *TWO)) == 0
    after = sorted(came - annotator.busy_at for came in annotator.times if came > annotator.busy_at)
    assert [came for came in after if 0.3 < came < 2.95] == []
    assert len([came for came in after if came > 2.95]) > 10
    assert read_annotations(dataset) == TRUTH


def logs(of: bytes) -> list[str]:
    """The files of Ray's session in which this stands."""
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return [str(path) for path in session.rglob("*") if path.is_file() and of in path.read_bytes()]


def test_the_key_reaches_the_processes_and_no_log(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUR_KEY", KEY)
    with chat_server(model=Words(), script=Annotator(TRUTH, LENGTHS), key=KEY) as server:
        assert main(words_of(server, dataset, "--api-key-env", "OUR_KEY", "--episodes", "0-2", *TWO)) == 0
        assert set(server.authorizations) == {f"Bearer {KEY}"}
    assert logs(KEY.encode()) == []
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_final_refusal_ends_the_job(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotator = Watched(fault=lambda e, h, a: "401", latency_s=0.05)
    with chat_server(model=Words(), script=annotator) as server:
        assert main(words_of(server, dataset, "--num-workers", 2, *TWO)) == 2
        assert "answered 401" in capsys.readouterr().err
        assert len(annotator.times) < 20, "two heads of ten episodes would be twenty"
    assert not read_annotations(dataset)


def test_a_killed_process_costs_only_the_episodes_under_way(dataset: Path) -> None:
    annotator = Watched(latency_s=0.2)

    def kill(count: int) -> None:
        if count == 7:
            (actor,) = [each for each in actors() if each != killed][:1]
            killed.append(actor)
            os.kill(actor, signal.SIGKILL)

    killed = list[int]()
    annotator.on_question = kill
    with chat_server(model=Words(), script=annotator) as server:
        assert main(words_of(server, dataset, "--num-workers", 2, *TWO)) == 0
    assert len(killed) == 1
    assert read_annotations(dataset) == TRUTH
    assert 20 <= len(annotator.asked) <= 20 + 4, "at most two episodes of two heads were under way"


def test_a_killed_command_goes_on_and_asks_nothing_twice(dataset: Path) -> None:
    annotator, store = Watched(latency_s=0.4), dataset.with_name("cubes.annotations")
    there = ("--num-workers", 2, "--ray", ray.get_runtime_context().gcs_address, "--actors", 2, "--cpus-per-actor", 0.5)
    environment = {**os.environ, "PYTHONPATH": str(Path(milepost.__file__).parents[1])}
    with chat_server(model=Words(), script=annotator) as server:
        words = words_of(server, dataset, *there)
        command = subprocess.Popen([sys.executable, "-m", "milepost", *words], env=environment, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while len(stored(store)) < 4 and command.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        command.kill()
        assert command.wait() == -signal.SIGKILL
        time.sleep(1.0)  # the processes of a killed job end too
        done = stored(store)
        assert 4 <= len(done) < 20
        annotator.asked.clear()
        assert main(words) == 0
    again = {each[:2] for each in annotator.asked}
    assert not done & again
    assert done | again == {(number, head) for number in range(len(LENGTHS)) for head in NAMES}
    assert read_annotations(dataset) == TRUTH


def stored(store: Path) -> set[tuple[int, str]]:
    """The answers of a store that may not be there yet."""
    return {(number, head) for number, heads in read_annotations(store).items() for head in heads} if is_store(store) else set()


def actors() -> list[int]:
    """The processes of this cluster that work on items."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if b"ray::MapWorker" in path.read_bytes()]


def test_options_that_cannot_be_meant(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ("annotate", str(dataset), *BOTH, "--base-url", "http://127.0.0.1:9/v1", "--model", "tiny")
    for words, says in (
        ((*nowhere, "--actors", "2"), "--actors means nothing without --ray"),
        ((*nowhere, "--ray", "--num-workers", "0"), "--num-workers must be at least 1"),
        (("annotate", str(dataset), "--export", "--ray"), "--ray has an effect only when a model is asked"),
        (("annotate", str(dataset), "--ray"), "--ray has an effect only with stages to ask about"),
    ):
        assert main(list(words)) == 2
        assert says in " ".join(capsys.readouterr().err.split())
