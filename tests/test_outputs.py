"""What is written is whole, has one writer, and leaves nothing behind."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from milepost.core.errors import DataError
from milepost.core.outputs import (
    MARK,
    BusyError,
    atomic_folder,
    atomic_path,
    clear_leftovers,
    output_lock,
    remove_partial,
    require_writable,
    write_text,
)

WRITE_FOR_EVER = """
import sys, time
from pathlib import Path
from milepost.core import atomic_path, atomic_folder, output_lock
path = Path(sys.argv[1])
with output_lock(path), atomic_path(path) as temporary, atomic_folder(path.with_name("folder")):
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of `path` and has a file and a folder half written."""
    process = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_one_writer_at_a_time_and_the_message_names_the_other(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    process = writer(path)
    try:
        with (
            pytest.raises(BusyError, match=rf"out.parquet is being written by another process \(process {process.pid} on "),
            output_lock(path),
        ):
            pass
    finally:
        end(process)
    with output_lock(path):  # the system freed the killed process's lock
        assert not list(tmp_path.glob(f".out.parquet.*{MARK}"))
    assert not list(tmp_path.glob(".out*"))


def test_what_killed_processes_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    end(writer(tmp_path / "out.parquet"))
    others = [
        tmp_path / ".other.milepost",
        tmp_path / f".x.deadbeef-999999-1.abcd{MARK}",
        tmp_path / ".x.tmp",
        tmp_path / "out.parquet.partial",
    ]
    for other in others:
        other.write_text("theirs")
    with atomic_path(tmp_path / "mine") as mine:
        assert clear_leftovers(tmp_path) == 2
        assert mine.exists()
    assert all(other.exists() for other in others)
    require_writable(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if MARK in p.name) == sorted(p.name for p in others if MARK in p.name)


def test_a_lock_is_not_given_twice_among_threads(tmp_path: Path) -> None:
    inside, most, lock = [0], [0], threading.Lock()

    def work(_: int) -> bool:
        try:
            with output_lock(tmp_path / "out"):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.002)
                with lock:
                    inside[0] -= 1
            return True
        except BusyError:
            return False

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(200)))
    assert any(done)
    assert most[0] == 1
    assert not list(tmp_path.iterdir())


def test_files_have_the_users_umask_from_every_thread(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: write_text(tmp_path / f"{i}.txt", "x"), range(200)))
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "new") as part:
        (part / "a").write_text("a")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "a").read_text() == "a"
    with pytest.raises(DataError, match="exists already"), atomic_folder(tmp_path / "new"):
        pass
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "other"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_only_a_folder_with_our_mark_is_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "p.partial"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not a folder that milepost made"):
        remove_partial(theirs, "provenance.json", tmp_path / "p")
    assert (theirs / "thesis.tex").exists()
    (theirs / "provenance.json").write_text("{}")
    remove_partial(theirs, "provenance.json", tmp_path / "p")
    assert not theirs.exists()


def test_long_names_have_room_for_the_mark(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".txt")
    with output_lock(path):
        write_text(path, "x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_lock_inside_the_same_lock_is_fine(tmp_path: Path) -> None:
    with output_lock(tmp_path / "out"):
        with output_lock(tmp_path / "out"):
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(BusyError):
            pool.submit(lambda: output_lock(tmp_path / "out").__enter__()).result()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address", ["s3://bucket/out.parquet", "file:///data/out.parquet", "memory://out.parquet", "hf://datasets/a/b/out.parquet"]
)
def test_an_address_is_refused_and_leaves_no_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (output_lock, atomic_path, atomic_folder):
        with pytest.raises(DataError, match="is an address, and files are written on this machine alone"), write(Path(address)):
            pass
    assert list(tmp_path.iterdir()) == []
