"""Shared by all tests: a seeded generator; everything offline."""

import os
import signal
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as milepost.cli does

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in a shell's background: processes of the tests would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each: torch's threads would fight over them
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import numpy as np
import pytest
from hypothesis import settings

import type_checks

settings.register_profile("milepost", deadline=None)  # how long an example takes says more of the machine's other work than of ours
settings.load_profile("milepost")

_CACHE = tempfile.TemporaryDirectory(prefix="milepost-tests-")
os.environ["MILEPOST_CACHE"] = _CACHE.name  # nothing lands in the user's own


def pytest_configure(config: pytest.Config) -> None:
    """Warnings that the tests' own files cause are errors too."""
    helpers = "|".join(sorted(path.stem for path in Path(__file__).parent.rglob("*.py") if not path.stem.startswith("test_")))
    config.addinivalue_line("filterwarnings", rf"error:::(.*\.)?(test_\w+|{helpers})$")
    # What is said of a user's data points at the user's line, which is a test here. It is no fault of the test.
    config.addinivalue_line("filterwarnings", "default::milepost.core.errors.DataWarning")


def pytest_runtest_setup() -> None:
    type_checks.check_again()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
