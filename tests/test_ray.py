"""Work on a Ray cluster of this machine: the same files, and nothing that one episode or one process does ends the job."""

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import torch

from milepost import DataError, open_dataset
from milepost.cli.entry import main
from milepost.scale import Cluster, Failure, Tally, once, spread
from milepost.scale.cluster import ClusterError
from milepost.scale.quiet import short_messages
from milepost.scale.watch import watched
from milepost.scale.work import Answer
from milepost.testing import CAMERA, tiny_sarm, write_example

TWO = Cluster(actors=(2, 2), timeout_s=3.0, tries=2, cpus=0.5)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Starts a cluster whose processes can import this file, and compute as this process does: with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        with Cluster().joined():
            yield
    torch.set_num_threads(threads)


@dataclasses.dataclass(frozen=True)
class Making:
    """Makes work that does to an item what is said of it. folder: where it leaves a mark each time an item is begun."""

    folder: str = ""
    acts: tuple[tuple[int, str], ...] = ()

    def __call__(self) -> Callable[[int], int]:
        return self.work

    def work(self, item: int) -> int:
        if self.folder:
            (Path(self.folder) / f"{item}-{os.getpid()}-{time.monotonic_ns()}").touch()
        act = dict(self.acts).get(item, "")
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "hang":
            time.sleep(60)
        if act == "fail":
            raise RuntimeError("no such thing")
        return item * 2


def test_every_item_has_one_answer(tmp_path: Path) -> None:
    answers = list(spread(TWO, Making(str(tmp_path)), range(50)))
    assert sorted((each.item, each.value) for each in answers if isinstance(each, Answer)) == [(item, item * 2) for item in range(50)]
    assert len({each.actor for each in answers if isinstance(each, Answer)}) <= 2
    assert len(list(tmp_path.iterdir())) == 50, "none was begun twice"


def test_an_item_that_ends_its_process_hangs_or_fails_is_said_and_the_others_have_answers(tmp_path: Path) -> None:
    answers = list(spread(TWO, Making(str(tmp_path), ((3, "kill"), (11, "hang"), (17, "fail"))), range(20)))
    failures = {each.item: each.reason for each in answers if isinstance(each, Failure)}
    assert sorted(failures) == [3, 11, 17]
    assert "its process ended" in failures[3]
    assert "more than 3 s (--episode-timeout-s)" in failures[11]
    assert "RuntimeError: no such thing" in failures[17]
    assert all("2 times" in reason for reason in failures.values())
    assert sorted(each.item for each in answers if isinstance(each, Answer)) == [item for item in range(20) if item not in failures]
    for item in failures:
        assert len(list(tmp_path.glob(f"{item}-*"))) == 2


def refusing() -> Callable[[int], int]:
    raise DataError("there is no dataset at /data/towels")


def test_a_process_that_cannot_begin_ends_the_job_with_its_reason() -> None:
    with pytest.raises(ClusterError, match=r"the worker \S+:\d+ cannot begin: there is no dataset at /data/towels"):
        list(spread(TWO, refusing, range(4)))
    with pytest.raises(DataError, match=r"^there is no dataset at /data/towels$"):
        once(TWO, refusing)


def test_other_versions_on_a_node_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.scale.work._versions", lambda: {"milepost": "0.0.1"})
    with pytest.raises(ClusterError, match=r"milepost \S+, and the job was started with 0\.0\.1; install the same on every node"):
        list(spread(TWO, Making(), [1]))


def test_no_room() -> None:
    with pytest.raises(ClusterError, match=r"no node of the cluster has 1 cores and 4 GPUs for an actor \(--cpus-per-actor, --gpus"):
        list(spread(dataclasses.replace(TWO, cpus=1.0, gpus=4.0), Making(), [1]))


def test_the_summary_names_what_took_long() -> None:
    tally = Tally()
    for item in range(9):
        tally.add(Answer(item, None, 8.0 if item == 4 else 1.1, "node:1"), item=item, frames=10)
    assert "9 episodes by 1 process" in tally.lines()[0]
    assert "slowest: episode 4 (8.0 s); the median is 1.10 s" in tally.lines()[2]


def test_the_summary_says_what_processes_kept_and_what_a_million_frames_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of half a core and a quarter of a card, for 720 s; they worked 700 s on 4,000 frames."""
    tally = Tally.of(Cluster(cpus=0.5, gpus=0.25))
    tally.add(Answer(0, None, 100.0, "node:1"), item=0, frames=1000)
    tally.add(Answer(1, None, 600.0, "node:2"), item=1, frames=3000)
    monkeypatch.setattr(time, "monotonic", lambda: tally.begun + 720.0)
    assert tally.lines() == [
        "2 episodes by 2 processes in 720.0 s: 6 frames a second; while a process works it does 5 to 10 a second",
        "they kept 0.2 core hours and 0.1 GPU hours, with the start; a million more frames take 24 core hours and 12 GPU hours",
    ]


def test_messages_of_ray_are_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray's thread prints them to standard output, where a verb's JSON is."""
    with short_messages():
        words = "(raylet) A worker died. To troubleshoot the problem, check the logs."
        thread = threading.Thread(target=partial(print, words), name="ray_listen_error_messages")
        thread.start()
        thread.join()
        print('{"episodes": 6}')
    assert tuple(capsys.readouterr()) == ('{"episodes": 6}\n', "(raylet) A worker died.\n")


# The verb


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    write_example(folder / "dots")
    tiny_sarm().save_pretrained(folder / "sarm")
    return folder


def label(folder: Path, *words: object) -> int:
    return main(["label", str(folder / "dots"), *map(str, words)])


def test_label_writes_the_same_bytes(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(dots)
    for name, words in (("here", ()), ("ray", ("--ray", "--actors", 2, "--cpus-per-actor", 0.5))):
        assert label(dots, "--model", "sarm", "--output-path", f"{name}.parquet", *words) == 0
    assert (dots / "here.parquet").read_bytes() == (dots / "ray.parquet").read_bytes()
    assert "6 episodes by" in capsys.readouterr().err
    assert label(dots, "--model", "sarm", "--output-path", "ray.parquet", "--ray") == 0
    assert "labelled already" in capsys.readouterr().err


def test_several_models_write_the_same_bytes(dots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dots)
    for name, words in (("here", ()), ("there", ("--ray", "--actors", 2, "--cpus-per-actor", 0.5))):
        assert label(dots, "--model", "elapsed", "--model", "./sarm", "--output-path", name, *words) == 0
    names = sorted(path.name for path in (dots / "here").glob("*.parquet"))
    assert names == ["elapsed_progress.parquet", "sarm_progress.parquet"]
    for name in names:
        assert (dots / "here" / name).read_bytes() == (dots / "there" / name).read_bytes()


def test_other_cameras_are_named_before_the_work_and_the_others_are_labelled(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_example(tmp_path / "same")
    write_example(tmp_path / "other")
    for path in (tmp_path / "other" / "meta").rglob("*.json"):
        path.write_text(path.read_text().replace(CAMERA, f"{CAMERA}_2"))
    (tmp_path / "other" / "videos" / CAMERA).rename(tmp_path / "other" / "videos" / f"{CAMERA}_2")
    names = [str(tmp_path / "other"), str(tmp_path / "same"), str(dots / "dots")]
    files = ("--model", str(dots / "sarm"), "--episodes", "0", "--output-path", str(tmp_path / "made"))
    assert main(["label", *names, *files, "--ray", "--cpus-per-actor", "0.5"]) == 1
    first = next(line for line in capsys.readouterr().err.splitlines() if "is left out" in line)
    assert first.startswith(f"before the work begins: {names[0]} is left out: ")
    assert CAMERA in first
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["dots", "same"]


def test_an_episode_that_cannot_be_read_is_left_unknown_as_without_ray(
    dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_example(tmp_path / "dots")
    video = sorted(open_dataset(tmp_path / "dots").root.rglob("*.mp4"))[0]
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 3])
    codes, said = [], []
    for name, words in (("here", ()), ("ray", ("--ray", "--cpus-per-actor", 0.5))):
        codes.append(label(tmp_path, "--model", dots / "sarm", "--output-path", tmp_path / f"{name}.parquet", *words))
        said.append([line for line in capsys.readouterr().err.splitlines() if "unknown" in line or "no progress" in line])
    assert codes[0] == codes[1]
    assert said[0] == said[1]


def test_less_room_than_wanted_is_said(dots: Path, tmp_path: Path) -> None:
    with Cluster().joined() as ray:
        assert Cluster(actors=(1, None))._lack_of_room(ray) == ""
        assert Cluster(actors=(500, None))._lack_of_room(ray).startswith("--actors wants 500 processes at least, and the cluster has room")


def test_a_cluster_that_is_gone_is_named_once() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with watched(address, said.append, every_s=0.05):
            time.sleep(0.3)
    assert said == []
    with watched(address, said.append, every_s=0.05):
        time.sleep(0.5)
    assert len(said) == 1
    assert address in said[0]


def test_an_output_that_cannot_be_written_is_refused_before_ray_starts(
    dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Cluster, "joined", lambda *words: pytest.fail("the cluster was joined"))
    for path, words in (("/proc/x.parquet", "/proc"), (dots, "is a folder"), ("s3://bucket/x.parquet", "looks like an address")):
        assert label(dots, "--model", "elapsed", "--output-path", path, "--ray") == 2
        assert words in capsys.readouterr().err
    assert label(dots, "--model", "elapsed", "--model", "./sarm", "--output-path", "/proc/x", "--ray") == 2
    assert main(["audit", str(dots / "dots"), "--model", "elapsed", "--output-dir", "/proc/x", "--ray"]) == 2
    assert capsys.readouterr().err.count("the folder /proc cannot be written to") == 2


def test_no_cluster_there(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", partial(_refuse, ConnectionError("Could not find any running Ray instance.")))
    assert label(dots, "--model", "elapsed", "--output-path", dots / "none.parquet", "--ray", "10.0.0.1:6379") == 2
    assert "there is no Ray cluster at 10.0.0.1:6379" in capsys.readouterr().err


def test_a_cluster_that_asks_for_a_token(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ray's error does not say so; its cause does."""
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = RuntimeError("Failed to connect to GCS: InvalidAuthToken: Authentication token is missing or incorrect.")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", partial(_refuse, error))
    assert label(dots, "--model", "elapsed", "--output-path", dots / "none.parquet", "--ray", "10.0.0.1:6379") == 2
    assert "the Ray cluster at 10.0.0.1:6379 asks for a token: set RAY_AUTH_MODE=token" in capsys.readouterr().err


def _refuse(error: Exception, **options: object) -> None:
    raise error
