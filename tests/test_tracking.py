"""Trackers: asked for by name, imported only then, and what they write can be read back."""

import dataclasses
import sys
from pathlib import Path

import pytest

from milepost.tracking import Tracking, require_trackers
from milepost.types import DataError
from test_fit import at_step, fail, lines
from test_train import QUICK, run

TRAIN = dataclasses.replace(QUICK, steps=6, batch_size=8, validation=0.25, eval_every=2)


@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_back_what_the_log_says_also_after_a_resume(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train = dataclasses.replace(TRAIN, tracking=Tracking(("tensorboard",)))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, train=train, on_step=at_step(3, fail(KeyboardInterrupt())))
    run(tmp_path, train=train)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("loss", "validation_error"):
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        assert seen == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines(tmp_path) if name in line]


@pytest.mark.filterwarnings("default")
def test_wandb_offline_leaves_a_run_with_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path, train=dataclasses.replace(TRAIN, tracking=Tracking(("wandb",), project="dots", run_name="first")))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-first-*.wandb")
    content = file.read_bytes()
    assert all(word in content for word in (b"validation_error", b"grad_norm", b"dots", b"mixed_precision"))


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "trackio", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DataError, match=rf"pip install {name}, or 'milepost\[tracking\]'"):
            require_trackers([name])


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match="no tracker 'mlflow'"):
        Tracking(("mlflow",))
