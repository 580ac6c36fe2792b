"""`milepost label --model topreward`: what lands on disk, what is written down, what a kill, a server or a wrong option does."""

import json
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from killed import kill_after
from milepost.core.errors import UnreadableError
from milepost.core.types import Episode, Progress
from milepost.datasets.reader import open_dataset
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.zero_shot.options import size_in_bytes
from milepost.progress.labelling import label
from milepost.progress.store import ProgressStore
from milepost.progress.table import read_progress
from milepost.testing import Fault, ListDataset, chat_server, dot_episodes
from models.test_contract import VLM, tiny_topreward, tiny_vlm
from qwen_server import QwenModel
from test_cli import FIXTURE, assert_refused, dataset, milepost  # noqa: F401, the fixture

COLUMNS = ["index", "episode_index", "frame_index", "progress_sparse", "raw_logprob", "raw_logodds"]
TOPREWARD = ("--model", "topreward", "--vlm-name", VLM)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


def said(path: Path, name: str) -> object:
    return json.loads(read_progress(path).metadata[f"milepost.{name}"])


def test_the_file_and_where_it_is(dataset: Path) -> None:  # noqa: F811
    run = milepost("label", dataset, *TOPREWARD, "--num-prefixes", 15, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) | {"path": ""} == {"path": "", "frames": 744, "episodes": 6, "unknown_frames": 0}
    path = dataset / "topreward_progress.parquet"
    assert pq.read_schema(path).names == COLUMNS
    read = open_dataset(FIXTURE)
    for position in (0, 4):
        episode = read[position]
        alone, kept = tiny_topreward().predict(episode, num_prefixes=15), read_progress(path).progress(position, episode.length)
        np.testing.assert_allclose(kept.value, alone.value, atol=1e-4)
        np.testing.assert_allclose(kept.main.signals["logprob"].values, alone.main.signals["logprob"].values, atol=1e-5)
        np.testing.assert_allclose(kept.main.signals["logodds"].values, alone.main.signals["logodds"].values, atol=2e-5)
        assert (~np.isnan(kept.main.signals["logprob"].values)).sum() == {0: 15, 4: 11}[position]  # of 16 and 11 frames looked at
    assert milepost("weigh", dataset).returncode == 0  # what comes after reads it as it is
    assert milepost("evaluate", dataset).returncode == 0


def test_what_made_it_is_written_down(dataset: Path, output: Path) -> None:  # noqa: F811
    words = ("--protocol", "lerobot", "--fps", 4, "--episodes", "1", "--num-prefixes", 3, "--output-path", output)
    assert milepost("label", dataset, *TOPREWARD, *words).returncode == 0
    config, settings = said(output, "config"), said(output, "settings")
    assert (config["protocol"], config["fps"], config["vlm_name"]) == ("lerobot", 4.0, str(VLM))
    assert config["prompt_suffix_template"].endswith("The answer is: True")
    assert settings == {
        "num_prefixes": 3, "vlm": str(VLM), "vlm_commit": "", "vlm_weights": tiny_vlm().fingerprint, "frames_as": "video",
        "precision": "float32",
    }  # fmt: skip
    assert_refused(milepost("label", dataset, *TOPREWARD, "--output-path", output), "config", "--num-prefixes", "--overwrite")


def test_a_saved_config_is_a_model(dataset: Path, tmp_path: Path, output: Path) -> None:  # noqa: F811
    TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM), fps=1.0)).save_pretrained(tmp_path / "model")
    given = ("label", dataset, "--model", tmp_path / "model", "--output-path", output, "--episodes", "0")
    assert milepost(*given).returncode == 0
    assert (~np.isnan(read_progress(output).main.signals["logprob"].values)).sum() == 9  # 148 frames at 20 fps: 8 s and the last
    assert milepost(*given, "--fps", 2, "--overwrite").returncode == 0
    assert (~np.isnan(read_progress(output).main.signals["logprob"].values)).sum() == 16


def test_killed_the_same_command_goes_on(dataset: Path, tmp_path: Path, output: Path) -> None:  # noqa: F811
    whole = tmp_path / "whole.parquet"
    assert milepost("label", dataset, *TOPREWARD, "--output-path", whole).returncode == 0
    words = ["label", str(dataset), *map(str, TOPREWARD), "--output-path", str(output)]
    kill_after(2, *words)
    assert not output.exists()
    assert milepost(*words).returncode == 0
    assert output.read_bytes() == whole.read_bytes()


def test_the_only_camera_is_taken(tmp_path: Path, output: Path) -> None:
    images = FIXTURE.with_name("dataset_v3_images")
    run = milepost("label", images, *TOPREWARD, "--output-path", output)
    cameras = open_dataset(images).cameras
    if len(cameras) == 1:
        assert run.returncode == 0
        assert cameras[0] in run.stderr
    run = milepost("label", FIXTURE, *TOPREWARD, "--image-key", "observation.images.front", "--output-path", output, "--overwrite")
    assert_refused(run, "observation.images.front", "observation.images.wrist", "--image-key")


def test_success_is_counted_where_a_threshold_is_given(dataset: Path, output: Path) -> None:  # noqa: F811
    given = ("label", dataset, *TOPREWARD, "--output-path", output, "--json")
    assert "successes" not in json.loads(milepost(*given).stdout.splitlines()[-1])
    raw = read_progress(output)
    ends = {n: np.mean([x for x in raw.main.signals["logprob"].values[raw.episode_index == n] if not np.isnan(x)][-3:]) for n in range(6)}
    middle = float(np.median(list(ends.values())))
    found = json.loads(milepost(*given, f"--success-threshold={middle}").stdout.splitlines()[-1])  # the same file: it is no part of it
    assert found["successes"] == [n for n in range(6) if ends[n] > middle]
    table = milepost("evaluate", dataset, "--progress", output, "--json")
    assert set(json.loads(table.stdout)["success"]) == {"progress", "logprob", "logodds"}


def test_a_server_is_asked_the_same(dataset: Path, output: Path) -> None:  # noqa: F811
    """A real Qwen3-VL behind HTTP: true log-probabilities where it lists them, a bound where it does not; faults cost nothing but time."""
    model = QwenModel(tiny_vlm().networks.model, tiny_vlm().tokenizer, tiny_vlm().processor)
    given = ("label", dataset, "--model", "topreward", "--vlm-name", "tiny", "--num-prefixes", 3, "--episodes", "0,4")
    faults = {5: Fault(status=429, headers={"Retry-After": "0"}), 6: Fault(status=500)}
    with chat_server(model=model, max_logprobs=20, script=lambda number, body: faults.get(number)) as server:
        run = milepost(*given, "--base-url", server.url, "--output-path", output, "--price-per-million", 1.0, 2.0)
    assert "2 retries" in run.stderr
    assert "cost" in run.stderr
    assert "did not list the answer" in run.stderr
    table = read_progress(output)
    signals = {name: signal.values for name, signal in table.main.signals.items()}
    raw, bound = signals["logprob"], signals.get("logprob_bound")
    asked = ~np.isnan(raw) if bound is None else ~np.isnan(bound)
    assert asked.sum() == 6
    if bound is not None:  # not among 20 of 437: known to be at most that, and the progress is not made up
        assert run.returncode == 1
        unlisted = asked & np.isnan(raw)
        assert np.isnan(table.values()[unlisted]).all()
    assert said(output, "settings")["frames_as"] == "images"
    with chat_server(model=model, max_logprobs=437) as server:
        run = milepost(*given, "--base-url", server.url, "--output-path", output, "--overwrite", "--concurrency", 3)
    np.testing.assert_array_equal(
        read_progress(output).main.signals["logprob"].values, raw
    )  # no fault, another concurrency: the same numbers
    with chat_server(script=lambda number, body: Fault(status=401, message="no such key")) as server:
        assert_refused(milepost(*given, "--base-url", server.url, "--output-path", output.with_name("no.parquet")), "no such key")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stride", 3), "--stride means nothing"),
        (("--head-mode", "dense"), "--head-mode means nothing"),
        (("--num-prefixes", 1), "at least 2"),
        (("--max-memory", "much"), "such as 6GB"),
        (("--fps", 0.0), "fps"),
        (("--vlm-name", "/nowhere/vlm"), "no such folder"),
        (("--vlm-name", "Qwen/Qwen3-VL-8B-Instruct"), "hf download Qwen/Qwen3-VL-8B-Instruct"),
        (("--base-url", "localhost:8000"), "http or https"),
        (("--concurrency", 3), "means nothing without --base-url"),
        (("--max-memory", "1GB", "--base-url", "http://127.0.0.1:9/v1"), "means nothing with --base-url"),
        (("--device", "banana"), "banana"),
        (("--protocol", "lerobot", "--base-url", "http://127.0.0.1:9/v1"), "protocol='milepost'"),
    ],
)
def test_options_that_are_refused(words: tuple, said: str, dataset: Path) -> None:  # noqa: F811
    given = TOPREWARD if "--vlm-name" not in words else ("--model", "topreward")
    assert_refused(milepost("label", dataset, *given, *words), said)
    assert not (dataset / "topreward_progress.parquet").exists()


def test_other_models_know_none_of_it(dataset: Path) -> None:  # noqa: F811
    assert_refused(milepost("label", dataset, "--model", "elapsed", "--num-prefixes", 15), "--num-prefixes means nothing")
    assert_refused(milepost("train", dataset, "--model", "topreward", "--output-dir", dataset / "model"), "zero-shot")


def test_sizes() -> None:
    assert [size_in_bytes(text) for text in ("6GB", "512MiB", "1.5 g", "1000")] == [6 * 10**9, 2**29, 15 * 10**8, 1000]
    for text in ("", "GB", "-1GB", "0", "6 GBs"):
        with pytest.raises(ValueError, match="6GB"):
            size_in_bytes(text)


def test_a_small_memory_gives_the_same_file(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    curves = []
    for memory in ("1MB", "2GB"):
        path = tmp_path / f"{memory}.parquet"
        assert milepost("label", dataset, *TOPREWARD, "--max-memory", memory, "--episodes", "0", "--output-path", path).returncode == 0
        curves.append(read_progress(path).main.signals["logprob"].values)
    np.testing.assert_allclose(*curves, atol=1e-5)


def test_the_next_pictures_are_read_meanwhile(tmp_path: Path) -> None:
    """Thinking about the first episode waits until the second has been looked at: read one after the other, this would never end."""
    looked: dict[int, threading.Event] = {index: threading.Event() for index in range(4)}

    class Slow:
        def look(self, episode: Episode) -> int:
            looked[episode.index].set()
            if episode.index == 2:
                raise UnreadableError("episode 2 cannot be read")
            return episode.index

        def predict(self, episode: Episode, *, seen: int | None = None) -> Progress:
            assert seen == episode.index
            if episode.index < 3:
                assert looked[episode.index + 1].wait(20)
            return Progress(episode.index, np.full(episode.length, seen / 4, np.float32))

    unread: list[int] = []
    table = label(Slow(), ListDataset(dot_episodes(4)), tmp_path / "p.parquet", on_unreadable=lambda number, error: unread.append(number))
    assert unread == [2]
    assert {int(n): float(table.values()[table.episode_index == n][0]) for n in (0, 1, 3)} == {0: 0.0, 1: 0.25, 3: 0.75}
    assert np.isnan(table.values()[table.episode_index == 2]).all()


def test_a_finished_file_is_not_made_again_and_an_unfinished_run_not_thrown_away(dataset: Path, output: Path) -> None:  # noqa: F811
    given = ("label", dataset, *TOPREWARD, "--output-path", output)
    assert milepost(*given).returncode == 0
    before = output.stat().st_mtime_ns
    run = milepost(*given)
    assert run.returncode == 0
    assert "nothing to do" in run.stderr
    assert output.stat().st_mtime_ns == before
    store = ProgressStore(output, {**read_provenance(output), "settings": said_text(output, {"num_prefixes": 4})})
    store.add(Progress(0, np.zeros(148, np.float32)), 0)
    store.keep()
    output.unlink()
    assert_refused(milepost(*given), "--num-prefixes", "unfinished", "--overwrite")
    assert store.has(0)
    assert milepost(*given, "--overwrite").returncode == 0


def read_provenance(path: Path) -> dict[str, str]:
    return {key.removeprefix("milepost."): value for key, value in read_progress(path).metadata.items() if key.startswith("milepost.")}


def said_text(path: Path, changes: dict) -> str:
    return json.dumps(said(path, "settings") | changes, sort_keys=True)


def test_an_episode_too_long_is_left_unknown_and_the_others_labelled(dataset: Path, output: Path) -> None:  # noqa: F811
    run = milepost("label", dataset, *TOPREWARD, "--max-input-length", 190, "--output-path", output)
    assert run.returncode == 1
    assert "max_input_length allows 190" in run.stderr
    table = read_progress(output)
    unknown = {int(number) for number in table.episode_index[np.isnan(table.values())]}
    assert unknown
    assert unknown < set(range(6))
