"""Several processes, really launched: together they are one process with the whole batch, and none is left waiting."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import dataclasses, os, sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
from milepost.models.sarm.samples import TrainingSet
from milepost.models.training.distributed import init_process_group
from milepost.core import DataError
from test_train import QUICK, SMALL, run

folder, batch, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
train = dataclasses.replace(QUICK, steps=24, batch_size=batch, lr=1e-4, validation=0.25, eval_every=6)
sample = TrainingSet.sample
def broken(self, size, rng):
    batch = sample(self, size, rng)
    if mode == "nan":
        batch["images"][size - 1] *= float("nan")  # a sample of the last process alone
    return batch
TrainingSet.sample = broken
with init_process_group("cpu") as process_group:
    def on_step(done, total):
        if done == 5 and mode == "dies" and process_group.rank == 1:
            os._exit(3)
        if done == 5 and mode == "interrupt" and process_group.rank == 1:
            os.kill(os.getpid(), 2)
    try:
        trained = run(folder, dataclasses.replace(SMALL, unfinished="mask"), train, on_step=on_step)
    except DataError as error:
        (folder / f"error-{{process_group.rank}}").write_text(str(error))
        raise SystemExit(2)
    print("RANK", process_group.rank, "KEPT", trained.fit_result.kept, flush=True)
"""


def launch(tmp_path: Path, name: str, *, processes: int, batch: int, mode: str = "plain", launcher: str = "accelerate") -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable]
    if launcher == "accelerate" and processes > 1:  # --multi_gpu is accelerate's word for torch.distributed; without a GPU it is gloo
        words += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--main_process_port", port]
    elif processes > 1:
        words += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words += [str(script), str(tmp_path / name), str(batch), mode]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def numbers(folder: Path, name: str) -> list[float]:
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[name] for line in found if name in line]


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """Without dropout, whose masks differ. Labels are missing unevenly (failed attempts have no tau), so only global counts give this."""
    both = [launch(tmp_path, "two", processes=2, batch=8), launch(tmp_path, "one", processes=1, batch=16)]
    output = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(output)
    assert len(re.findall(r"RANK \d", output[0])) == 2
    for name in ("loss", "sparse_tau_loss", "grad_norm", "validation_loss"):
        one, two = numbers(tmp_path / "one", name), numbers(tmp_path / "two", name)
        assert len(one) == (4 if name == "validation_loss" else 24)
        assert two == pytest.approx(one, rel=1e-5 if "loss" in name else 1e-4), name
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"config.json", "model.safetensors", "log.jsonl", "last"}


def test_nan_in_one_process_stops_both(tmp_path: Path) -> None:
    process = launch(tmp_path, "nan", processes=2, batch=8, mode="nan", launcher="torchrun")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "loss became nan at step 0" in (tmp_path / "nan" / "error-0").read_text(), output


def test_a_process_that_dies_leaves_none_waiting(tmp_path: Path) -> None:
    start = time.monotonic()
    process = launch(tmp_path, "dies", processes=2, batch=8, mode="dies")
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert time.monotonic() - start < 100


def test_an_interrupt_seen_by_one_process_stops_both_with_a_checkpoint(tmp_path: Path) -> None:
    process = launch(tmp_path, "interrupt", processes=2, batch=8, mode="interrupt")
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert (tmp_path / "interrupt" / "checkpoint.pt").is_file()
    assert len(numbers(tmp_path / "interrupt", "loss")) == 6
    again = launch(tmp_path, "interrupt", processes=2, batch=8)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert len(numbers(tmp_path / "interrupt", "loss")) == 24
