"""The command line as a process among others: a reader that leaves, a full disk behind it, and what other packages would say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WARNS = """
import logging, sys, warnings
from milepost.cli import entry
def other():
    exec("import warnings; warnings.warn('theirs'); warnings.warn('old', FutureWarning)", {"__name__": "their"})
    warnings.warn("caused here", DeprecationWarning)
    logging.getLogger("theirs").warning("logged")
    exec("import warnings; warnings.warn('ours')", {"__name__": "milepost.models.sarm"})
    return 0
entry.start = lambda *_: other()
sys.exit(entry.main())
"""


def process(*words: str, stdout: object, **variables: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, **variables}
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("info", "--help"), ("evaluate", "--help")], ids=" ".join)
def test_a_reader_who_leaves_ends_it_quietly(words: tuple[str, ...]) -> None:
    """As in `milepost --help | head -1`: the reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert process("-m", "milepost", *words, stdout=writing) == (141, "")
    finally:
        os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [("--help",), ("info", "--help")], ids=" ".join)
def test_a_full_disk_behind_the_output_is_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        code, errors = process("-m", "milepost", *words, stdout=full)
    assert code == 2
    assert "no space left" in errors
    assert len(errors.splitlines()) == 1


def test_a_user_sees_our_warnings_and_no_others() -> None:
    assert process("-c", WARNS, stdout=subprocess.DEVNULL) == (0, "milepost: ours\n")


def test_all_warnings_are_there_for_who_looks_for_a_fault() -> None:
    code, errors = process("-c", WARNS, stdout=subprocess.DEVNULL, MILEPOST_DEBUG="1")
    assert code == 0
    assert all(word in errors for word in ("theirs", "old", "logged", "ours"))


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_package_that_swallows_a_signal_changes_nothing(number: str, code: int) -> None:
    """As pyarrow does, whose conversion of arguments raises TypeError for whatever ended it."""
    script = f"""
import os, signal, sys
from milepost.cli import entry, info
def main(args):
    try:
        os.kill(os.getpid(), signal.{number})
    except KeyboardInterrupt:
        raise TypeError("unexpected argument") from None
info.main = main
sys.exit(entry.main(["info", "towels"]))
"""
    ended, errors = process("-c", script, stdout=subprocess.DEVNULL)
    assert ended == code
    assert "interrupted" in errors
    assert "Traceback" not in errors
