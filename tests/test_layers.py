"""Rooms: imports point one way, a room is entered through its face, heavy packages keep to their addresses, the front door is light."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from syntax_trees import nodes, parsed

PACKAGE = Path(__file__).parents[1] / "src" / "milepost"

LAYERS = [
    {"core"},
    {"datasets", "encoders", "metrics", "scale"},
    {"importing", "online", "progress", "vlm"},
    {"models", "weights", "annotation"},
    {"figures", "serving", "sim"},
    {"viewer"},
    {"cli", "testing"},
    {"rewards"},
]
"""Twin of the table in ARCHITECTURE.md: a room imports only from rooms in the lines above its own."""

INSIDE = {
    "datasets": [
        "remote",
        "annotation_columns colours episode_arrays features findings hub parquet placement recording stamps statistics",
        "cells columns episode_columns language_rows owned per_frame records report sound_rows transaction video",
        "entries fingerprints",
        "choice episode_table frames rows writer",
        "metadata",
        "annotations behaviour footage language language_cells language_checks reader subtask_index",
        "origin validation",
        "copy drawings",
        "language_shift language_writing part_meta",
        "parts trim",
    ],
    "vlm": [
        "frame_parts layers licence logprobs memory patches prompt proxies replies",
        "transport video_clip",
        "dialect network",
        "engine server",
        "chat heads loading",
        "adapters generate head_files hidden remote",
        "pooling",
    ],
    "models": [
        "model_config training.marks",
        "classifier.network foreign instructions online plugin_format prepared processing sarm.augmentation sarm.network "
        "sarm.options source training.checkpoints training.distributed training.tracking tuning.options tuning.targets value.targets "
        "windowed.network zero_shot.clips "
        "zero_shot.config zero_shot.options zero_shot.sampling",
        "gvl.config gvl.options gvl.question registry robometer.config robometer.options roboreward.config roboreward.options sarm.config "
        "sarm.loss saved topreward.config topreward.options training.config training.episodes windowed.config windowed.inputs",
        "zero_shot.model",
        "classifier.model elapsed encoded gvl.model robometer.model roboreward.model sarm.lerobot_format sarm.samples success.config "
        "topreward.processor topreward.sampling training.loop tuning.prepare tuning.tuner value.config windowed.samples zero_shot.kind",
        "classifier.kind gvl.kind robometer.kind roboreward.kind sarm.checkpoint success.options success.targets topreward.model "
        "training.recipe tuning.learner value.options value.prepare windowed.model",
        "options sarm.processor sarm.readiness success.model success.prepare topreward.kind training.card training.evaluation "
        "training.settings tuning.run value.model windowed.kind windowed.recipe",
        "sarm.card sarm.model success.card success.kind training.run tuning.card value.card value.kind windowed.settings",
        "factory sarm.kind sarm.prepare success.train tuning.settings value.train",
        "robometer.tuning roboreward.tuning sarm.train success.settings value.settings",
        "sarm.by_row sarm.settings",
    ],
    "annotation": ["faults sampling sheets spreadsheet store subtasks", "question reply sources", "checks", "loop", "dataset"],
    "figures": [
        "film.planes formats",
        "style",
        "annotation audit dropped episode film.curves film.text weights",
        "film.panel report",
        "audit_page film.render",
        "of_dataset",
    ],
}
"""The order of the files inside the big rooms: a file imports only from the lines above its own. Elsewhere there is no circle."""

HEAVY = {
    "torch": {"encoders", "online", "vlm", "models", "sim", "weights", "testing"},
    "safetensors": {"encoders", "vlm", "models", "online", "sim", "testing"},
    "transformers": {"vlm"},
    "peft": set(),
    "av": {"datasets", "figures"},
    "pyarrow": {"datasets", "progress", "scale", "weights"},
    "ray": {"scale"},
    "matplotlib": {"figures"},
    "jinja2": {"figures"},
    "rich": {"cli"},
    "tyro": {"cli", "models"},
    "metaworld": {"sim"},
    "mujoco": {"sim"},
    "gymnasium": set(),
    "stable_baselines3": set(),
    "torchrl": set(),
    "fsspec": {"datasets"},
    "huggingface_hub": {"datasets"},
    "httpx2": {"online", "vlm"},
    "pydantic": {"annotation"},
    "wandb": set(),
    "tensorboard": set(),
    "trackio": set(),
    "starlette": {"serving", "viewer"},
    "uvicorn": {"serving", "viewer"},
    "websockets": {"online"},
    "h5py": set(),
    "zarr": set(),
    "tensorflow_datasets": set(),
    "PIL": {"serving", "datasets", "importing", "vlm", "annotation", "figures", "testing"},
}
"""Rooms that import a heavy package. An empty set: it is imported by name, and only if it was asked for."""
MEASURES = {
    "average_precision", "interval", "max_progress", "milestone_coverage", "order_correlation", "path_efficiency", "regret", "separation",
    "stage_accuracy", "stagnation", "tau_a", "voc", "voc_r",
}  # fmt: skip
FOR_OTHERS = {"ModelKind", "pack_episode", "pack_observations", "SuccessDetector", "SuccessRule", "detect_success"} | MEASURES
"""What people import who have models or studies of their own, and no room of ours."""
FOR_THE_PLUGIN = {"Attempts", "EnvStep", "RowTraining", "RowWindows", "current_process_group", "pad_state"}
"""What plugins/lerobot imports."""


@cache
def modules() -> dict[str, Path]:
    """Returns every file by its dotted name inside the package, without the faces and without `__main__.py`."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in paths.items() if not name.endswith(("__init__", "__main__"))}


@cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Returns (module, line, inside a function) of every import."""
    nested = {id(n) for f in nodes(path) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    rows: list[tuple[str, int, bool]] = []
    for node in nodes(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else node.module or "" for alias in node.names
            ]
        rows += [(name, node.lineno, id(node) in nested) for name in names]
    return rows


@cache
def is_module(name: str) -> bool:
    """Tells whether a dotted name is a file or a folder of ours."""
    path = PACKAGE.parent / name.replace(".", "/")
    return name.startswith("milepost.") and (path.is_dir() or path.with_suffix(".py").is_file())


def room_of(name: str) -> str:
    return name.split(".")[0]


@cache
def ours() -> list[tuple[str, str, int]]:
    """Returns (file, what it imports, line) for every import of our own, both without `milepost.`."""
    return [
        (name, target.removeprefix("milepost."), line)
        for name, path in modules().items()
        for target, line, _ in imports(path)
        if target.startswith("milepost.")
    ]


def test_every_folder_is_a_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set.union(*LAYERS)
    assert {path.name for path in PACKAGE.glob("*.py*")} == {"__init__.py", "__init__.pyi", "__main__.py"}


def test_imports_point_downwards() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, target, line in ours()
        if room_of(target) != room_of(name) and level[room_of(target)] >= level[room_of(name)]
    ]
    assert not wrong


def test_another_room_is_entered_through_its_face() -> None:
    wrong = [f"{name}:{line} imports {target}" for name, target, line in ours() if room_of(target) != room_of(name) and "." in target]
    assert not wrong


def test_a_verb_enters_the_rooms_as_modules() -> None:
    """So its help loads none of them: `datasets.open_dataset`, not `from milepost.datasets import open_dataset`."""
    wrong = [
        f"{name}:{line} imports from {target}" for name, target, line in ours() if room_of(name) == "cli" and names_of(name, target, line)
    ]
    assert not wrong


@cache
def names_of(name: str, target: str, line: int) -> list[str]:
    """Returns what an import statement takes out of another room than core, by name."""
    if target in ("core", "cli") or "." in target:
        return []
    found = [node for node in nodes(modules()[name]) if isinstance(node, ast.ImportFrom) and node.lineno == line]
    return [alias.name for node in found if node.module != "milepost" for alias in node.names]


def test_a_room_does_not_enter_itself_through_its_face() -> None:
    wrong = [f"{name}:{line} imports {target}" for name, target, line in ours() if target == room_of(name)]
    assert not wrong


@pytest.mark.parametrize("room", INSIDE)
def test_files_of_a_big_room_have_an_order(room: str) -> None:
    level = {f"{room}.{name}": number for number, line in enumerate(INSIDE[room]) for name in line.split()}
    assert set(level) == {name for name in modules() if room_of(name) == room}
    inside = [(name, target, line) for name, target, line in ours() if room_of(name) == room == room_of(target)]
    assert not [f"{name}:{line} imports {target}" for name, target, line in inside if level[target] >= level[name]]


def test_no_import_runs_in_a_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for name, target, _ in ours():
        if target in graph:
            graph[name].add(target)
    while leaves := [name for name, targets in graph.items() if not targets]:
        graph = {name: targets - set(leaves) for name, targets in graph.items() if name not in leaves}
    assert not graph


@pytest.mark.parametrize("room", sorted(set.union(*LAYERS)))
def test_a_face_offers_what_its_list_says(room: str) -> None:
    """One kind of face: a sentence, and `lazy_loader` on the `.pyi` beside it. Every name there exists, and none is a file's."""
    face = PACKAGE / room / "__init__.py"
    statements = parsed(face).body
    assert isinstance(statements[0], ast.Expr)
    assert [ast.unparse(each) for each in statements[1:]] == [
        "import lazy_loader",
        "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)",
    ]
    module = importlib.import_module(f"milepost.{room}")
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert not {path.stem for path in face.parent.iterdir()} & set(module.__all__)


@cache
def names_used() -> set[tuple[str, str, str]]:
    """Returns (room, room whose face it enters, name) for every name that a file takes from a face."""
    rows: set[tuple[str, str, str]] = set()
    for file, path in modules().items():
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom) and node.module:
                rows |= {(room_of(file), node.module.removeprefix("milepost."), alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                rows.add((room_of(file), node.value.id, node.attr))
    return rows


@pytest.mark.parametrize("room", sorted(set.union(*LAYERS) - {"testing"}))
def test_every_name_of_a_face_is_used_by_another_room_or_public(room: str) -> None:
    public = (PACKAGE / "__init__.pyi").read_text()
    used = {name for by, of, name in names_used() if of == room != by}
    offered = importlib.import_module(f"milepost.{room}").__all__
    unused = [name for name in offered if name not in used | FOR_OTHERS | FOR_THE_PLUGIN and f" {name} as " not in public]
    assert not unused


def test_nothing_of_ours_is_imported_inside_a_function() -> None:
    wrong = [
        f"{name}:{line}" for name, path in modules().items() for target, line, inside in imports(path) if inside and "milepost" in target
    ]
    assert not wrong


def test_heavy_packages_keep_to_their_addresses() -> None:
    used: dict[str, set[str]] = {package: set() for package in HEAVY}
    for name, path in modules().items():
        for target, _, _ in imports(path):
            if target.split(".")[0] in HEAVY:
                used[target.split(".")[0]].add(room_of(name))
    assert used == HEAVY


def loaded_by(code: str) -> set[str]:
    """Returns the packages that a fresh process has loaded after this code."""
    script = f"{code}\nimport sys\nprint('LOADED', *sorted(set(m.split('.')[0] for m in sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(out.stdout.split("LOADED")[-1].split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import milepost", set(HEAVY)),
        ("from milepost import core, datasets, encoders, metrics, progress, vlm, models, weights, annotation, figures, sim", set(HEAVY)),
        ("from milepost.cli.entry import main; main(['--help'])", set(HEAVY)),
        ("from milepost import RabcConfig, weigh; from milepost.core import Stages, causal; import milepost.metrics.scores", set(HEAVY)),
        ("from milepost import SampleWeights", {"torch", "matplotlib", "av", "rich"}),
        ("import milepost.vlm.server", {"torch", "transformers"}),
        ("from milepost import open_dataset", {"torch", "matplotlib", "tyro", "metaworld", "mujoco"}),
    ],
)
def test_the_front_door_loads_nothing_heavy(code: str, absent: set[str]) -> None:
    assert not loaded_by(code) & absent


def test_the_help_of_no_verb_loads_what_only_its_work_needs() -> None:
    verbs = "for verb in VERBS:\n    try: main([verb, '--help'])\n    except SystemExit: pass"
    loaded = loaded_by(f"from milepost.cli.entry import VERBS, main\n{verbs}")
    assert "tyro" in loaded
    assert not loaded & (set(HEAVY) - {"tyro", "rich"})


def test_the_public_names_exist() -> None:
    import milepost

    assert all(getattr(milepost, name) is not None for name in milepost.__all__)
    assert not callable(getattr(milepost, "nothing", None))
