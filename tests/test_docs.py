"""What the pages show, runs: their Python, block after block, with the tiny VLM and a dataset of the tests in the places of real ones."""

import importlib
import json
import re
import sys
import threading
import tomllib
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import milepost
from milepost.cli.entry import main
from milepost.models import registry, train
from milepost.online import Sessions
from milepost.serving import bind, make_reward_server
from milepost.serving.app import create_app
from milepost.serving.calls import CALLS
from milepost.serving.service import ServerConfig, Service
from milepost.testing import chat_server, dot_episodes, tiny_robometer, tiny_sarm, write_dots, write_example

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
DATA = Path(__file__).parent / "data"
STANDS_FOR = {
    "Qwen/Qwen3-VL-8B-Instruct": str(DATA / "qwen3vl_tiny"),
    'device="cuda"': 'device="cpu"',
    "fps=30)": "fps=30.0)",  # the tests' own checks of types are stricter than Python
    "path/or/hub-id": str(DATA / "dataset_v3"),
}


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a dataset to a page that plays, with two steps of training."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(6, failing=2))
    monkeypatch.setattr(milepost, "train", partial(train, steps=2))
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    names: dict = {"image": np.zeros((32, 32, 3), np.uint8), "state": np.zeros(2, np.float32)}
    names |= {"loss_per_sample": np.ones(3, np.float32), "weight_per_sample": np.ones(3, np.float32)}
    exec(compile(block.replace("path/or/hub-id", "dots").replace("fps=30)", "fps=10.0)"), "python.md", "exec"), names)
    assert names["images"].shape == (3, 32, 32, 3)
    assert len(names["weights"]) == 171
    assert set(names["summaries"]) == {"sarm", "elapsed"}
    assert {"episode.mp4", "review.html", "sarm"} <= {path.name for path in tmp_path.iterdir()}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_topreward(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"frames": np.load(DATA / "qwen3vl_tiny" / "clips.npz")["wide"]}
    for block in blocks("topreward.md"):
        for real, ours in STANDS_FOR.items():
            block = block.replace(real, ours)
        exec(compile(block, "topreward.md", "exec"), names)
    assert names["progress"].shape == (9,)
    assert names["reward"].shape == (1,)
    assert names["said"].value.shape == (148,)
    assert not np.allclose(names["right"].main.signals["logprob"].values, names["wrong"].main.signals["logprob"].values, equal_nan=True)
    assert names["reloaded"].config.vlm_name == STANDS_FOR["Qwen/Qwen3-VL-8B-Instruct"]
    assert (tmp_path / "topreward-qwen3vl-8b" / "config.json").stat().st_size < 1100


def run(page: str, names: dict, stand_ins: dict[str, str]) -> dict:
    """Runs the blocks of a page one after the other, with what the tests have in the places of real things. Returns all names."""
    for block in blocks(page):
        for real, ours in stand_ins.items():
            block = block.replace(real, ours)
        exec(compile(block, page, "exec"), names)
    return names


def test_sarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(2))
    tiny_sarm().save_pretrained("sarm")
    names = run("sarm.md", {}, {"path/or/hub-id": "dots", "lerobot-user/their-sarm": "sarm", "fps=30)": "fps=10.0)"})
    assert names["progress"].stage.shape == (33, 3)
    assert 0 <= names["now"].progress <= 1
    assert names["reward"].shape == (1,)


def test_roboreward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(1))
    stand_ins = {"path/or/hub-id": "dots", "teetone/RoboReward-8B": STANDS_FOR["Qwen/Qwen3-VL-8B-Instruct"], '"cuda"': '"cpu"'}
    names = run("roboreward.md", {}, stand_ins)
    assert names["curve"].value.shape == (33,)
    assert 1 <= names["step"].signals["grade"] <= 5


def test_robometer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(1))
    stand_ins = {"path/or/hub-id": "dots", "robometer/Robometer-4B": str(tiny_robometer("robometer")), '"cuda"': '"cpu"'}
    names = run("robometer.md", {}, stand_ins)
    assert names["curve"].value.shape == (33,)
    assert 0 <= np.nanmin(names["success"]) <= np.nanmax(names["success"]) <= 1


def test_fine_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(5, failing=2))
    monkeypatch.setattr(milepost, "train", partial(train, steps=2, batch_size=4, clips_per_episode=2, holdout=0.4))
    stand_ins = {"path/or/hub-id": "dots", "robometer/Robometer-4B": str(tiny_robometer("robometer")), '"cuda"': '"cpu"'}
    names = run("fine_tuning.md", {}, stand_ins)
    assert names["curve"].value.shape == (33,)
    assert 0 < names["after"] != names["before"]


def test_gvl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(1))
    with chat_server() as server:
        server.text = lambda body: '{"frames": [{"frame": 1, "completion": 50}]}'
        stand_ins = {"path/or/hub-id": "dots", "http://localhost:8000/v1": server.url, "served-name": "tiny"}
        names = run("gvl.md", {}, stand_ins)
    assert names["curve"].value.shape == (33,)
    assert names["lines"][0].startswith("frames with a percentage: 2 of 8 shown")


def test_annotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server that finds the stages of one episode and refuses the other."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(2))
    times = [("reach", 0.0, 1.0), ("carry", 1.0, 2.2), ("place", 2.2, 3.3)]
    reply = json.dumps({"subtasks": [{"name": name, "start": start, "end": end} for name, start, end in times]})
    with chat_server() as server:
        server.text = lambda body: reply if len(server.bodies) == 1 else "no"
        stand_ins = {"path/to/towels": "dots", "http://localhost:8000/v1": server.url, "Qwen/Qwen3-VL-30B-A3B-Instruct": "tiny"}
        with pytest.warns(UserWarning, match="1 of 2 episodes have no sparse annotation"):
            names = run("annotate.md", {}, stand_ins)
    assert names["first"] == milepost.Segment("reach", 0, 10)
    assert list(names["result"].refused) == [1]


def test_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(7))
    tiny_sarm().save_pretrained("sarm")
    assert run("audit.md", {}, {"path/or/hub-id": "dots"})["run"].audit.verdict == "says nothing"


def test_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    write_dots("dots", dot_episodes(6, failing=2))
    monkeypatch.setattr(milepost, "train", partial(train, steps=2))
    names = run("value.md", {}, {"path/or/hub-id": "dots"})
    assert names["curve"].value.shape == (33,)


def test_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    write_dots("dots", dot_episodes(6, failing=2))
    monkeypatch.setattr(milepost, "train", lambda *args, **options: train(*args, **{**options, "steps": 2}))
    names = run("success.md", {}, {"path/or/hub-id": "dots"})
    assert names["curve"].value.shape == (33,)
    assert names["stop"] in (True, False)


def test_advantage() -> None:
    steady, late = (each.is_positive for each in run("advantage.md", {}, {})["labels"].episodes)
    assert not steady.any()
    assert not late[:25].any()
    assert late.sum() == 20


def test_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(10))
    milepost.label(milepost.ElapsedModel(), milepost.open_dataset("dots"), "sarm_progress.parquet")
    assert run("view.md", {}, {"path/or/hub-id": "dots"})["problems"] == []
    assert "embedded" in (tmp_path / "review.html").read_text()


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and the entry point are installed as pip would; then the page's Python and commands, then the options."""
    monkeypatch.chdir(tmp_path)
    write_dots("dots", dot_episodes(6, failing=2))
    file, check, python, options = blocks("own_model.md")
    text = (DOCS / "own_model.md").read_text()
    (pyproject,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    settings = tomllib.loads(pyproject)
    install(tmp_path / "site", monkeypatch, {"change.py": file}, settings["project"]["entry-points"][registry.GROUP])
    names: dict = {}
    for block in (check, python):
        exec(compile(block.replace("path/or/hub-id", "dots"), "own_model.md", "exec"), names)
    assert set(names["evaluation"].scores) == {"change", "elapsed"}
    *commands, with_options = re.findall(r"^    milepost (.*?)(?:  +#.*)?$", text, re.MULTILINE)
    for command in commands:
        assert main(command.replace("DATASET", "dots").split()) == 0, command
    table = milepost.read_progress("dots/change_progress.parquet")
    assert json.loads(table.made_by["settings"])["package"] == "change 0.1.0"
    assert (table.name, table.main.score, table.main.signals["change"].unit) == ("change", "change", "grey levels")
    (offer,) = re.findall(r'`change = "(.*?)"`', text)
    monkeypatch.delitem(sys.modules, "change")
    install(tmp_path / "site", monkeypatch, {"change.py": f"{file}\n\n{options}"}, {"change": offer})
    assert main(with_options.replace("DATASET", "dots").split()) == 0
    np.testing.assert_allclose(milepost.read_progress("dots/change_progress.parquet").main.value, table.main.value**0.5, atol=1e-6)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], points: dict[str, str]) -> None:
    """Puts a package "change" with entry points on the path, as pip would."""
    about = folder / "change-0.1.0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: change\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *(f"{name} = {offer}" for name, offer in points.items())]))
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


RUN_ELSEWHERE = {
    "file_formats.md": "test_file_formats.py",
    "ray.md": "test_recipes.py",
    "lerobot.md": "test_episode_columns.py",
    "testing.md": "test_testing.py",
    "filtering.md": "test_tutorials.py",
    "rl_reward.md": "test_tutorials.py",
    "what_can_go_wrong.md": "test_tutorials.py",
    "weights.md": "test_weights_docs.py",
}


def test_every_page_with_python_is_run() -> None:
    """By a test of its name here, or in the file that is named above."""
    pages = [path.name for path in DOCS.rglob("*.md") if "```python" in path.read_text()]
    tests = Path(__file__).read_text()
    for page in pages:
        assert f"def test_{page.removesuffix('.md')}(" in tests or f'"{page}"' in (Path(__file__).parent / RUN_ELSEWHERE[page]).read_text()
    sections = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (DOCS / "weights.md").read_text(), re.DOTALL | re.MULTILINE)
    weights = (Path(__file__).parent / "test_weights_docs.py").read_text()
    assert all(f'"{title}"' in weights for title, body in sections if "```python" in body)


def test_every_page_is_reached_from_the_front_page() -> None:
    """By links, over other pages too."""
    reached, waiting = set[Path](), [README]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = re.findall(r"\]\(([\w/.-]+\.md)\)", page.read_text())
        waiting += [(page.parent / link).resolve() for link in links if (page.parent / link).is_file()]
    hidden = {path.name for path in DOCS.glob("*.md")} - {path.name for path in reached}
    assert hidden <= {"LOG.md", "dependencies.md", "benchmarks.md", "sarm_recipe.md"}  # for those who work on milepost itself


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    root = README.parent
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|js|html|pyi))`", (root / page).read_text()))
    assert named or page == "CONTRIBUTING.md"
    there = [path.as_posix() for path in root.rglob("*") if path.suffix and ".venv" not in path.as_posix()]
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for each checkpoint is the way out where several models ask different ones."""
    monkeypatch.chdir(tmp_path)
    run("models.md", {}, {})
    assert milepost.load_model("roboreward-4b").config.vlm_name == "teetone/RoboReward-4B"


def test_the_costs_of_models_are_those_that_are_counted() -> None:
    """The table of docs/models.md is what benchmarks/model_costs.py prints."""
    counted = importlib.import_module("benchmarks.model_costs").table()
    assert counted in (Path(__file__).parents[1] / "docs" / "models.md").read_text()


def test_serve(tmp_path: Path) -> None:
    """The page's loop against a server; the shaper's number."""
    loop, many, stream, later, alone = blocks("serve.md")
    (episode,) = dot_episodes(1)
    robot = [({camera: episode.camera(camera)[np.array([n])][0] for camera in episode.cameras}, episode.state[n]) for n in range(5)]
    listener, address = bind("127.0.0.1", 0)
    server = make_reward_server(Sessions(tiny_sarm()), address, {})
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    names: dict = {"robot": robot, "robots": robot[:2], "milepost": milepost}
    for code in (loop, many, stream, later):
        code = code.replace("127.0.0.1:7340", f"127.0.0.1:{address.port}").replace("fps=30", "fps=30.0")
        exec(compile(code, "serve.md", "exec"), names)
    names["client"].close()
    server.should_exit = True
    thread.join()
    listener.close()
    assert names["result"].frame == 4
    assert [each.frame for each in names["results"]] == [0, 1, 2, 3, 4]
    assert 0 <= names["result"].progress <= 1
    exec(compile(alone, "serve.md", "exec"), {"milepost": milepost})


def test_the_routes_of_serve_are_those_of_the_page() -> None:
    routes = set()
    for route in create_app(Service(Sessions(tiny_sarm()), {}, ServerConfig())).routes:
        methods = getattr(route, "methods", None) or {"GET"}  # a WebSocket opens with a GET
        routes |= {(method, re.sub("{.*}", "NAME", route.path)) for method in methods - {"HEAD"}}
    rows = [tuple(row.split()) for row in re.findall(r"^\| `([A-Z]+ /\S+)` \|", (DOCS / "serve.md").read_text(), re.M)]
    assert set(rows) == routes
    by_message = {(call.method, call.path.partition("{")[0] + "NAME" * ("{" in call.path)) for call in CALLS if call.in_message}
    assert set(rows[: rows.index(("GET", "/stream"))]) == by_message  # "for all of the above"


class NoiseEnv(gymnasium.Env):
    """Images and states of noise, of which a learner can take batches."""

    observation_space = gymnasium.spaces.Dict({
        "top": gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8), "agent_pos": gymnasium.spaces.Box(0, 30, (2,), np.float32),
    })  # fmt: skip
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        return self.observation_space.sample(), 0.0, False, False, {}


def test_rl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last block: it needs LeRobot, and plugins/lerobot/checks/hil.py runs it there (`make lerobot`)."""
    monkeypatch.chdir(tmp_path)
    tiny_sarm().save_pretrained("sarm")
    names: dict = {"make_env": NoiseEnv, "dataset": write_example("demonstrations")}
    *here, in_lerobot = blocks("rl.md")
    for block in here:
        exec(compile(block, "rl.md", "exec"), names)
    assert 0 <= names["info"]["milepost"]["progress"] <= 1
    assert names["rewards"].shape == (2,)
    assert names["learner"].num_timesteps == 32
    assert names["steps"]["next", "milepost", "progress"].shape == (5, 1)
    assert "lerobot_policy_milepost" in in_lerobot
    assert "rl.md" in (README.parent / "plugins" / "lerobot" / "checks" / "hil.py").read_text()
