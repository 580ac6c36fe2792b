"""docs/weights.md says what runs: its Python blocks are taken out of the page and run; its flags are the command's."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from milepost.cli.entry import main
from milepost.testing import write_example
from milepost.weights.advice import flags
from milepost.weights.config import RabcConfig
from milepost.weights.loader import SampleWeights
from milepost.weights.result import weigh

PAGE = (Path(__file__).parents[1] / "docs" / "weights.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))


def blocks(section: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.S | re.M)


class Frames(torch.utils.data.Dataset):
    """64 frames of state and action chunks, as a LeRobot dataset gives them."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(int(index))
        return {
            "index": torch.tensor(index),
            "observation.state": torch.randn(4, generator=rng),
            "action": torch.randn(5, 2, generator=rng),
        }


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """A folder with weights.parquet, of which half of the frames weigh 0, and what the page's blocks take as given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    config = RabcConfig(4, kappa=0.05, ramp="hard")
    curve = np.concatenate([np.linspace(0, 1, 32), np.linspace(1, 0, 32)])
    SampleWeights.of(weigh(np.arange(64), np.repeat([0, 1], 32), curve, config=config)).save(tmp_path / "weights.parquet", config, {})
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(4, 10), nn.Unflatten(1, (5, 2)))
    logged: list[dict] = []
    return {"torch": torch, "dataset": Frames(), "policy": policy, "log": logged.append, "logged": logged}


@pytest.mark.parametrize("section", ["Plain PyTorch", "Accelerate, several processes", "Hugging Face Trainer"])
@pytest.mark.filterwarnings("ignore")  # those of accelerate and transformers
def test_the_recipes_run_and_learn(section: str, names: dict) -> None:
    for code in blocks(section):
        policy = names["policy"]
        before = [p.detach().clone() for p in policy.parameters()]
        exec(compile(code, section, "exec"), names)
        learnt = names.get("sampler") is None and any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        assert learnt or all(p.grad.isfinite().all() for p in policy.parameters())
    if section == "Plain PyTorch":
        assert names["weights"].missing == 0
        assert {"sample_weight_mean_weight", "sample_weighting/delta_mean", "sample_weighting/delta_std"} <= set(names["logged"][0])
        assert set(names["sampler"]) <= set(range(32))


def test_the_complete_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    write_example("towels")
    assert main(["weigh", "towels", "--chunk-size", "5", "--json"]) == 0
    capsys.readouterr()
    torch.manual_seed(0)
    (code,) = blocks("A complete example")
    names: dict = {}
    exec(compile(code, "A complete example", "exec"), names)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert (names["weights"].missing, len(names["frames"])) == (0, 171)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_gives_the_weighted_gradient(names: dict) -> None:
    """Frames of weight 0 change nothing: their actions may be anything."""
    after = []
    for spoilt in (0.0, 100.0):
        dataset = Frames()
        plain = dataset.__getitem__
        names["dataset"] = [
            item | {"action": item["action"] + spoilt * (int(item["index"]) >= 32)} for item in map(plain, range(len(dataset)))
        ]
        torch.manual_seed(0)
        names["policy"] = nn.Sequential(nn.Linear(4, 10), nn.Unflatten(1, (5, 2)))
        exec(compile(blocks("Hugging Face Trainer")[0], "trainer", "exec"), names)
        after.append(torch.cat([p.detach().flatten() for p in names["policy"].parameters()]))
    assert torch.equal(*after)


def test_two_processes_learn_what_one_does(names: dict, tmp_path: Path) -> None:
    """The page's loop behind two processes with batches of 16, and one with 32: the same policy, although batches weigh differently."""
    code = blocks("Accelerate, several processes")[0]
    after = {}
    for world, size in ((1, 32), (2, 16)):
        own = code.replace("batch_size=32, shuffle=True", f"batch_size={size}")
        assert own != code
        script = tmp_path / f"train_{world}.py"
        script.write_text(
            PRELUDE
            + own
            + f"""
if accelerator.is_main_process:
    torch.save(policy.state_dict(), "policy_{world}.pt")
"""
        )
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}", str(script)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120, env=environment())
        assert done.returncode == 0, done.stderr[-2000:]
        after[world] = torch.load(tmp_path / f"policy_{world}.pt")
    for name in after[1]:
        torch.testing.assert_close(after[1][name], after[2][name], rtol=0, atol=1e-6)


def environment() -> dict[str, str]:
    return {**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


PRELUDE = """
import torch
from torch import nn
from test_weights_docs import Frames

torch.manual_seed(0)
dataset, policy = Frames(), nn.Sequential(nn.Linear(4, 10), nn.Unflatten(1, (5, 2)))
"""


def test_lerobots_loop_gets_our_object(names: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's lines against modules of LeRobot's names: what its training would be given. (`benchmarks/lerobot_weights.py --train`
    runs the same lines in LeRobot's own training.)"""
    stand_ins = {name: ModuleType(name) for name in ("lerobot", "lerobot.scripts", "lerobot.utils")}
    stand_ins["lerobot.scripts"].lerobot_train = ModuleType("lerobot_train")
    stand_ins["lerobot.utils"].sample_weighting = ModuleType("sample_weighting")
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("WEIGHTS", "weights.parquet")
    exec(compile(blocks("LeRobot: pi0, pi0.5, SmolVLA")[0], "launcher", "exec"), {"__name__": "launcher"})
    make = stand_ins["lerobot.utils"].sample_weighting.make_sample_weighter
    weighter = make(None, None, torch.device("cpu"), dataset_root=None, dataset_repo_id="a/b")
    weight, _ = weighter.compute_batch_weights({"index": torch.tensor([0, 40])})
    assert weight.tolist() == pytest.approx([2, 0], abs=1e-5)


def test_the_preset_of_the_page_is_the_packages(names: dict) -> None:
    for code in blocks("The setting of the study"):
        exec(compile(code, "preset", "exec"), names)
    assert names["config"] == RabcConfig.preset("study")
    written = re.search(r"--preset study +# (.*)", SECTIONS["The setting of the study"])
    assert written is not None
    assert written[1] == flags(RabcConfig.preset("study"))


def test_every_flag_on_the_page_is_an_option() -> None:
    ours = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(RabcConfig)} | {"--dry-run", "--figure", "--json", "--preset"}
    prose = "\n".join(text for name, text in SECTIONS.items() if not name.startswith("LeRobot"))
    assert set(re.findall(r"`(--[a-z-]+)", prose)) <= ours | {"--sample"}
    unsaid = {"--chunk-size", "--kappa", "--epsilon", "--rule"}
    assert ours - set(re.findall(r"(--[a-z-]+)", PAGE)) <= unsaid
