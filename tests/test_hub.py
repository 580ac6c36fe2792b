"""The Hub: its real cache layout on disk, no network (tests run with HF_HUB_OFFLINE=1)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

import builders
from builders import MP4, ROWS, TOP, build_dataset
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.datasets.hub import find_file
from milepost.datasets.reader import open_dataset
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.progress.labelling import provenance
from parquet_content import tree


@pytest.fixture
def small(tmp_path) -> builders.Built:
    """Three episodes, one camera, H.264, the first two in one mp4."""
    return build_dataset(tmp_path / "small")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(small, tmp_path, monkeypatch) -> Path:
    """A cache that holds the repository ada/push at one commit, branch main and tag v3.0. Returns the snapshot."""
    repo = tmp_path / "cache" / "datasets--ada--push"
    shutil.copytree(small.root, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    for ref in ("main", "v3.0"):
        (repo / "refs" / ref).write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repo / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", [None, "v3.0", COMMIT])
def test_a_hub_repository(hub, small, revision):
    dataset = open_dataset("ada/push", revision=revision)
    assert (dataset.name, dataset.root, dataset.is_local) == ("ada/push", hub, False)
    at_its_path = open_dataset(hub)  # a path into the cache is the repository, and like it never written into
    assert (at_its_path.name, at_its_path.is_local, at_its_path.fingerprint) == ("ada/push", False, dataset.fingerprint)
    for episode in dataset:
        np.testing.assert_array_equal(np.concatenate([*episode.cameras[TOP].chunks()]), small.images[TOP, episode.index])


def test_only_the_files_needed_are_downloaded(hub, small, tmp_path, monkeypatch):
    asked: list[str] = []
    plain = huggingface_hub.snapshot_download

    def snapshot(repo, **options):
        asked.append(" ".join(options["allow_patterns"]))
        return plain(repo, **options)

    def one_file(repo, *, filename, repo_type, revision):
        assert (repo, repo_type, revision) == ("ada/push", "dataset", COMMIT)
        asked.append(filename)
        (hub / filename).parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(small.root / filename, hub / filename))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one_file)
    shutil.rmtree(hub / "data")
    shutil.rmtree(hub / "videos")
    dataset = open_dataset("ada/push")
    fingerprint = dataset.fingerprint
    assert asked == ["meta/**"]
    episode = dataset[0]
    assert asked[1:] == [ROWS]
    episode.cameras[TOP][np.array([1])]
    list(dataset[1].cameras[TOP].chunks())
    assert asked[1:] == [ROWS, MP4]
    assert open_dataset("ada/push").fingerprint == fingerprint != open_dataset(small.root).fingerprint


def test_what_the_hub_does_not_have(hub, monkeypatch):
    for repo, revision, words in (("ada/none", None, "ada/none"), ("ada/push", "v9", "at revision 'v9'")):
        with pytest.raises(DataError, match=rf"{words}.*could not be downloaded"):
            open_dataset(repo, revision=revision)
    (hub / ROWS).unlink()
    with pytest.raises(DataError, match=rf"{ROWS} of the Hub dataset 'ada/push'.*could not be downloaded"):
        open_dataset("ada/push")[0]

    def dropped(*arguments, **options):
        raise errors.HfHubHTTPError.__bases__[0]("connection reset by peer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", dropped)
    with pytest.raises(DataError, match="connection reset by peer"):
        open_dataset("ada/push")


def test_a_local_folder_comes_before_the_hub(hub, small, tmp_path, monkeypatch):
    shutil.copytree(small.root, tmp_path / "ada" / "push")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("ada/push").is_local


def test_a_label_file_says_which_commit_of_a_hub_model_made_it(hub, tmp_path):
    """The repository's name moves on, its commit does not."""
    repo = tmp_path / "cache" / "models--ada--sarm"
    SARMModel(SARMConfig(hidden_dim=16, num_heads=2, num_layers=1, encoder="pixels", image_dim=4, text_dim=4)).save_pretrained(
        repo / "snapshots" / COMMIT
    )
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    dataset = open_dataset("ada/push")
    assert provenance(ElapsedModel(), dataset, "ada/sarm")["model_revision"] == COMMIT
    assert provenance(ElapsedModel(), dataset, "elapsed")["model_revision"] == ""


def labelled(snapshot: Path) -> Path:
    assert main(["label", "ada/push", "--model", "elapsed", "--output-path", str(snapshot.parents[3] / "made.parquet")]) == 0
    return Path(shutil.move(snapshot.parents[3] / "made.parquet", snapshot / "sarm_progress.parquet"))


def test_progress_in_the_repository_and_as_lerobot_names_it(hub, tmp_path, capsys):
    made = labelled(hub)
    main(["info", "ada/push"])
    assert "sarm_progress.parquet" in capsys.readouterr().out
    before = sorted(path for path in hub.parents[1].rglob("*"))
    for name in ("hf://datasets/ada/push/sarm_progress.parquet", "hf:/datasets/ada/push@main/sarm_progress.parquet"):
        assert find_file(Path(name)) == made
        for verb in ("evaluate", "weigh"):
            out = ["--output-path", str(tmp_path / "w.parquet"), "--chunk-size", "5"] if verb == "weigh" else []
            assert main([verb, "ada/push", "--progress", name, *out]) == 0, name
    assert main(["weigh", "ada/push", "--chunk-size", "5", "--output-path", str(tmp_path / "w2.parquet")]) == 0
    for words in (["weigh", str(hub), "--chunk-size", "5"], ["label", str(hub), "--model", "elapsed"]):
        assert main(words) == 2
        assert "a Hub dataset is never written into" in capsys.readouterr().err
    assert before == sorted(path for path in hub.parents[1].rglob("*"))
    with pytest.raises(DataError, match="names a dataset; a file of it"):
        find_file(Path("hf://datasets/ada/push"))
    assert open_dataset("hf://datasets/ada/push@v3.0").name == "ada/push"


def test_all_that_the_hub_says_is_said(hub, monkeypatch):
    words = "403 Client Error. (Request ID: Root=1)\n\nAccess to dataset ada/push is restricted.\x1b[31m Visit https://hf.co to ask."

    def gated(*arguments, **options):
        raise errors.HfHubHTTPError.__bases__[0](words)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(DataError, match=r"403 .* is restricted\. \[31m Visit https://hf\.co to ask\.") as caught:
        open_dataset("ada/push")
    assert str(caught.value).isprintable()

    def socks(*arguments, **options):
        raise ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.\nMake sure to install it.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", socks)
    with pytest.raises(DataError, match=r"SOCKS proxy.*pip install socksio"):
        open_dataset("ada/push")


def test_a_copy_of_some_of_it_leaves_the_cache_alone(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada--push.review.json").write_text(
        json.dumps(
            {
                "dataset": "ada/push",
                "dataset_footage": open_dataset("ada/push").footage_fingerprint,
                "marks": [{"episode": 0, "mark": "drop", "note": ""}],
            }
        )
    )
    before = tree(hub)
    assert main(["copy", "ada/push", "--output-dir", str(tmp_path / "new"), "--drop", "drop", "--episode-columns"]) == 0
    assert tree(hub) == before
    old, new = open_dataset("ada/push"), open_dataset(tmp_path / "new")
    assert len(new) == len(old) - 1
    np.testing.assert_array_equal(new[0].state, old[1].state)
    assert main(["copy", "ada/push", "--output-dir", str(hub / "new"), "--drop", "drop"]) == 2
    assert "in the Hub's cache" in capsys.readouterr().err
