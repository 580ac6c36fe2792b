"""Trackers: asked for by name, imported only then, and what they write can be read back."""

import dataclasses
import sys
from pathlib import Path

import pytest

from milepost.core.errors import DataError
from milepost.models.training.tracking import Tracking, require_trackers, run_id
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
            require_trackers(Tracking((name,)))


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ValueError, match="no tracker 'mlflow'"):
        Tracking(("mlflow",))


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nobody is logged in to W&B, no terminal can be asked, and no server of theirs is reached."""
    pytest.importorskip("wandb").teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("sys.stdin", None)
    return monkeypatch


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("variables", "project", "reason"),
    [
        ({}, "milepost", "(?i:api.key)"),
        ({"WANDB_API_KEY": "short"}, "milepost", "(?i:api key)"),
        ({"WANDB_MODE": "offline"}, "what?", "project name"),
        ({"WANDB_MODE": "offline"}, "a/b:c", "project name"),
    ],
)
def test_what_wandb_refuses_is_one_line_before_any_work(nobody, variables, project, reason) -> None:
    for name, value in variables.items():
        nobody.setenv(name, value)
    with pytest.raises(DataError, match=rf"refuses this run: .*{reason}.*WANDB_MODE=offline") as refusal:
        require_trackers(Tracking(("wandb",), project=project))
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("default")
def test_names_that_are_no_ids_are_made_fit(tmp_path: Path, nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("WANDB_MODE", "offline")
    nobody.setenv("WANDB_SILENT", "true")
    tracking = Tracking(("wandb",), project="team/towels", run_name="sarm: towels? v2/3")
    require_trackers(tracking)
    run(tmp_path, train=dataclasses.replace(TRAIN, tracking=tracking))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-sarm- towels- v2-3-*.wandb")
    content = file.read_bytes()
    assert all(word in content for word in (b"sarm: towels? v2/3", b"team", b"towels"))


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("plain", "plain-k"),
        ("a:b;c,d#e?f/g'h", "a-b-c-d-e-f-g-h-k"),
        ("  ", "run-k"),
        ("毛巾" * 50, "毛巾" * 16 + "毛-k"),
        ("x" * 300, "x" * 100 + "-k"),
    ],
)
def test_an_id_is_short_and_has_no_reserved_characters(name: str, fit: str) -> None:
    assert run_id(name, "k") == fit
