"""`milepost audit --ray`: the same audit.json and curves as one process, and consent before a server is asked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from milepost.cli.entry import main
from milepost.scale import Cluster
from milepost.testing import chat_server, dot_episodes, tiny_sarm, write_dots
from test_audit_command import Decided, asking

TWO = ("--ray", "--actors", "2", "--cpus-per-actor", "0.5")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Starts one cluster for all tests of this file. Its processes compute as this one does: with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with Cluster().joined():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "dots"
    write_dots(root, dot_episodes(6, failing=2, tasks=2))
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_sarm().save_pretrained(tmp_path / "model")


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.json"))}


def test_the_same_bytes_as_one_process(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes, printed = [], []
    for folder, more in (("here", ()), ("there", TWO)):
        codes.append(main(["audit", str(dots), "--model", "model", "--no-cache", "--json", "--output-dir", folder, *more]))
        printed.append(capsys.readouterr().out)
    assert codes[0] == codes[1]
    assert printed[0] == printed[1]
    assert files("here") == files("there")
    assert len(files("there")) == 1 + 6


def test_what_is_stored_is_not_computed_again(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", str(dots), "--model", "model", "--no-cache", "--output-dir", "out", "--episodes"]
    assert main([*words, "0-2", "--controls", "frozen_first"]) in (0, 1)
    first = {path: path.stat().st_mtime_ns for path in Path("out/curves").iterdir()}
    assert main([*words, "0-3", "--controls", "frozen_first", *TWO]) in (0, 1)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert json.loads(Path("out/audit.json").read_text())["episodes"] == [0, 1, 2, 3]
    assert main([*words, "0-3", "--controls", "frozen_first", "shuffled", *TWO]) in (0, 1)
    assert all("shuffled, seed 0" in json.loads(path.read_text())["curves"] for path in first)


def test_a_server_is_asked_after_consent_and_through_one_gate(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server(model=Decided()) as server:
        call = [*asking(server.url, dots), "--controls", "frozen_first", "shuffled", "--episodes", "0-3", "--concurrency", "3", *TWO]
        assert main(call) == 2
        assert "up to 48 questions about 4 episodes, and 2 from each process" in " ".join(capsys.readouterr().err.split())
        assert server.bodies == []
        assert main([*call, "--yes"]) == 1
        assert len(server.bodies) <= 48 + 2 * 2
        assert server.most <= 3
        asked = len(server.bodies)
        assert main(call) == 1
        assert len(server.bodies) == asked


def test_options_without_ray(dots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(dots), "--model", "elapsed", "--actors", "2"]) == 2
    assert "--actors means nothing without --ray" in capsys.readouterr().err
