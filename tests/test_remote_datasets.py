"""Datasets at an address: the arrays of the local dataset; only files that are needed, whole or not at all; nothing is written there."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.datasets import remote
from milepost.datasets.hub import find_files, in_cache
from milepost.datasets.owned import require_elsewhere
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import validate
from milepost.progress.table import read_progress
from test_cli import FIXTURE, assert_refused, milepost

ADDRESS = "flaky://bucket/robots/towels"
TOP = "observation.images.top"


class Flaky(MemoryFileSystem):
    """A store in memory that writes down what is opened, and fails when it is told to."""

    protocol = "flaky"
    opened: list[str] = []  # noqa: RUF012
    faults: dict[str, BaseException] = {}  # noqa: RUF012
    """Part of a name -> what reading its second half raises."""
    on_listing: list[Exception] = []  # noqa: RUF012
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def find(self, path: str, *words: object, **more: object) -> object:
        if self.on_listing:
            raise self.on_listing[0]
        return super().find(path, *words, **more)

    def open(self, path: str, mode: str = "rb", **more: object) -> object:
        if mode != "rb":
            return super().open(path, mode, **more)
        self.opened.append(path.partition("/towels/")[2])
        fault = next((fault for part, fault in self.faults.items() if part in path), None)
        return super().open(path, mode, **more) if fault is None else Half(self.cat_file(path), fault)


class Half:
    """A file whose first half can be read."""

    def __init__(self, content: bytes, fault: BaseException) -> None:
        self.content, self.fault = content, fault

    def __enter__(self) -> "Half":
        return self

    def __exit__(self, *words: object) -> None: ...

    def read(self, size: int) -> bytes:
        if not self.content:
            raise self.fault
        first, self.content = self.content[: len(self.content) // 2], b""
        return first


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """The dataset of the fixtures in the store, and an empty cache here."""
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    system = Flaky()
    upload(system)
    for each in (Flaky.opened, Flaky.faults, Flaky.on_listing):
        each.clear()
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def upload(system: Flaky) -> None:
    for path in sorted(FIXTURE.rglob("*")):
        if path.is_file():
            system.pipe_file(f"/bucket/robots/towels/{path.relative_to(FIXTURE).as_posix()}", path.read_bytes())


def half_files(cache: Path) -> list[Path]:
    """Files of the cache that are not the whole of one in the fixtures."""
    whole = {path.read_bytes() for path in FIXTURE.rglob("*") if path.is_file()}
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".json" and path.read_bytes() not in whole]


def require_equal(address: str) -> None:
    there, here = open_dataset(address), open_dataset(FIXTURE)
    assert (there.episode_indices, there.cameras, there.tasks) == (here.episode_indices, here.cameras, here.tasks)
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        for name, column in other.columns.items():
            np.testing.assert_array_equal(one.columns[name], column)
        for camera in here.cameras:
            np.testing.assert_array_equal(one.camera(camera)[np.array([0, 5])], other.camera(camera)[np.array([0, 5])])


@pytest.mark.parametrize("kind", ["flaky", "memory", "file"])
def test_the_arrays_are_those_of_the_local_dataset(store: Flaky, tmp_path: Path, kind: str) -> None:
    shutil.copytree(FIXTURE, tmp_path / "there")
    if kind == "memory":
        fsspec.filesystem("memory").put(f"{FIXTURE}/", "/here/towels/", recursive=True)
    require_equal({"flaky": ADDRESS, "memory": "memory://here/towels/", "file": f"file://{tmp_path / 'there'}"}[kind])


def test_only_the_files_that_are_needed(store: Flaky) -> None:
    """meta/ at first, then the rows and videos of the episodes that are looked at; the second time nothing."""
    dataset = open_dataset(ADDRESS, episodes="0-1")
    assert all(name.startswith("meta/") for name in Flaky.opened)
    assert dataset.fingerprint
    assert all(name.startswith("meta/") for name in Flaky.opened), "a fingerprint needs no file"
    Flaky.opened.clear()
    for episode in dataset:
        episode.camera(TOP)[np.array([0])]
    needed = {name for index in (0, 1) for record in [dataset.meta.episodes[index]] for name in (record.data, record.videos[TOP].path)}
    assert sorted(Flaky.opened) == sorted(needed)
    assert len(needed) < len([path for path in FIXTURE.rglob("*") if path.suffix in (".parquet", ".mp4") and "meta" not in path.parts])
    Flaky.opened.clear()
    open_dataset(ADDRESS)[0].camera(TOP)[np.array([0])]
    assert Flaky.opened == []


def test_labels_and_weights_of_a_dataset_at_an_address(store: Flaky, tmp_path: Path) -> None:
    before = sorted(store.store)
    run = milepost("label", ADDRESS, "--model", "elapsed")
    assert_refused(run, "a remote dataset is never written into", "--output-path")
    out, here = tmp_path / "p.parquet", tmp_path / "here.parquet"
    Flaky.opened.clear()
    assert milepost("label", ADDRESS, "--model", "elapsed", "--episodes", "0-1", "--output-path", out).returncode == 0
    assert not [name for name in Flaky.opened if name.endswith(".mp4")], "a clock sees no image"
    assert milepost("label", FIXTURE, "--model", "elapsed", "--episodes", "0-1", "--output-path", here).returncode == 0
    np.testing.assert_array_equal(read_progress(out).values(), read_progress(here).values())
    assert read_progress(out).metadata["milepost.dataset"] == ADDRESS
    run = milepost("weigh", ADDRESS, "--progress", out, "--chunk-size", 5, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["path"] == str(tmp_path / "weights.parquet")
    store.pipe_file("/bucket/robots/towels/elapsed_progress.parquet", out.read_bytes())
    assert_refused(milepost("weigh", ADDRESS, "--chunk-size", 5), "never written into", "--output-path")
    assert milepost("weigh", ADDRESS, "--chunk-size", 5, "--output-path", tmp_path / "w.parquet").returncode == 0
    assert sorted(store.store) == sorted([*before, "/bucket/robots/towels/elapsed_progress.parquet"])


def test_several_datasets_some_of_them_remote(store: Flaky, tmp_path: Path) -> None:
    store.pipe_file("/bucket/robots/none/readme.txt", b"x")
    run = milepost("label", ADDRESS, FIXTURE, "flaky://bucket/robots/none", "--model", "elapsed", "--output-path", tmp_path, "--json")
    rows = json.loads(run.stdout)["datasets"]
    assert run.returncode == 1
    assert rows[0]["path"] == str(tmp_path / "towels" / "elapsed_progress.parquet")
    assert "no meta/" in rows[2]["error"]


def test_a_broken_connection_leaves_no_half_file(store: Flaky, tmp_path: Path) -> None:
    for fault in (ConnectionResetError("connection reset by peer"), KeyboardInterrupt()):
        Flaky.faults[".mp4"] = fault
        with pytest.raises(type(fault) if isinstance(fault, KeyboardInterrupt) else DataError):
            open_dataset(ADDRESS)[0].camera(TOP)[np.array([0])]
        assert not half_files(tmp_path / "cache")
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".mp4"]
    Flaky.faults[".mp4"] = EOFError("closed")
    with pytest.raises(DataError, match="could not be copied: closed; the same command tries again"):
        open_dataset(ADDRESS)[0].camera(TOP)[np.array([0])]
    Flaky.faults.clear()
    require_equal(ADDRESS)


def test_a_file_that_ends_early(store: Flaky, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Half, "read", lambda self, size: self.content[: len(self.content) // 2] if self.once() else b"")
    monkeypatch.setattr(Half, "once", lambda self: vars(self).setdefault("n", 0) == 0 and not vars(self).update(n=1), raising=False)
    Flaky.faults["tasks.parquet"] = EOFError()
    with pytest.raises(DataError, match=r"ended after \d+ of \d+ bytes"):
        open_dataset(ADDRESS)
    assert not half_files(tmp_path / "cache")


def test_what_has_changed_is_copied_again_and_what_has_not_is_not(store: Flaky) -> None:
    first = open_dataset(ADDRESS)
    first[0].camera(TOP)[np.array([0])]
    Flaky.opened.clear()
    name = first.meta.episodes[0].data
    store.pipe_file(f"/bucket/robots/towels/{name}", (FIXTURE / name).read_bytes())  # the same size, another time
    second = open_dataset(ADDRESS)
    second[0].camera(TOP)[np.array([0])]
    assert Flaky.opened == [name]
    assert second.fingerprint != first.fingerprint
    Flaky.opened.clear()
    store.pipe_file("/bucket/robots/towels/meta/stats.json", b"{}")
    third = open_dataset(ADDRESS)
    assert Flaky.opened == ["meta/stats.json"]
    assert third.fingerprint == second.fingerprint, "annotations and statistics have no influence"
    assert first.root != second.root != third.root


def test_what_cannot_be_reached(store: Flaky, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        ("flaky://bucket/robots/none", "there is nothing at this address"),
        ("flaky://bucket/robots/tow", "there is nothing at this address"),
        ("flaky://bucket/robots", "no meta/"),
        ("nope://bucket/x", "Protocol not known: nope"),
    ]
    if find_spec("s3fs") is None:
        cases.append(("s3://bucket/x", "pip install 'milepost[s3]'"))
    for address, words in cases:
        with pytest.raises(DataError) as error:
            open_dataset(address)
        assert words in str(error.value), address
    for fault, words in (
        (PermissionError("Access Denied"), "AWS_PROFILE"),
        (FileNotFoundError("The specified bucket does not exist"), "check the address"),
        (OSError("Could not connect to the endpoint URL"), "endpoint"),
        (ValueError("no credentials"), "environment"),
    ):
        monkeypatch.setattr(Flaky, "on_listing", [fault])
        assert main(["info", ADDRESS]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(DataError, match="--revision is for datasets of the Hub"):
        open_dataset(ADDRESS, revision="main")


def test_a_full_disk(store: Flaky, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*words: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(remote.Remote, "_copy", full)
    assert_refused(milepost("info", ADDRESS), "no space left")
    monkeypatch.undo()


def test_a_disk_without_hard_links(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*words: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    require_equal(ADDRESS)


def test_the_copy_is_nobodys_to_write(store: Flaky, tmp_path: Path) -> None:
    dataset = open_dataset(ADDRESS)
    assert in_cache(dataset.root / "x.parquet")
    assert not dataset.is_local
    again = find_files(dataset.root)
    assert (again.name, again.commit) == (ADDRESS, dataset.files.commit)
    assert again.path(dataset.meta.episodes[0].data).is_file()
    with pytest.raises(DataError, match="milepost's cache of remote datasets"):
        require_elsewhere(dataset.root / "copy", dataset.root)
    assert find_files(FIXTURE).remote is None


def test_names_that_would_leave_the_folder_are_no_files(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Flaky.find

    def find(self: Flaky, path: str, **more: object) -> dict[str, object]:
        found = dict(plain(self, path, **more))
        return {**found, f"{path}/meta/../../../etc/passwd": {"size": 1}, f"{path}els/meta/info.json": {"size": 1}}

    monkeypatch.setattr(Flaky, "find", find)
    assert not [name for name in open_dataset(ADDRESS).files.remote.stamps if ".." in name or name.startswith("els")]


def test_a_password_is_not_written_down() -> None:
    assert remote._public("ftp://ada:secret@host/towels/") == "ftp://ada@host/towels"
    assert [remote.is_address(name) for name in ("s3://b/x", "zip://x::s3://b/x.zip", "ada/push", "/data/x", "hf:/datasets/a/b")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_validation(store: Flaky) -> None:
    report = validate(ADDRESS)
    assert report.healthy
    assert {finding.code for finding in report.findings} <= {"not-downloaded"}
    assert not [name for name in Flaky.opened if name.endswith(".mp4")]
