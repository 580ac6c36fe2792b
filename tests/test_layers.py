"""Imports point one way, heavy packages keep to their addresses, and the front door is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "milepost"

LAYERS = [
    {"types"},
    {"tasks", "images", "ticks"},
    {
        "windows",
        "stages",
        "weights",
        "metrics",
        "events",
        "statistics",
        "files",
        "outputs",
        "features",
        "colours",
        "placement",
        "stamps",
        "scheduling",
        "versions",
    },
    {"video", "parquet", "console", "processes", "success", "checks"},
    {"progress_table", "records"},
    {"store", "checkpoints", "hub", "metadata", "recording", "embed", "planes", "plots", "evaluate", "tracking", "cells"},
    {"vlm", "annotation", "render", "rows", "frames", "sample_weights"},
    {"lerobot", "record", "fit", "policy"},
    {"models", "matching"},
    {"train", "labelling", "annotate", "sim", "report", "footage", "columns"},
    {"doctor", "model_card", "compare", "viewer"},
    {"demo", "copying"},
    {"commands"},
    {"cli"},
]
"""Twin of the list in ARCHITECTURE.md. A package counts as one module; its own files may import each other."""

HEAVY = {
    "torch": {"embed", "vlm", "models", "processes", "checkpoints", "fit", "policy", "train", "sample_weights", "commands"},
    "safetensors": {"models", "embed", "vlm", "policy"},
    "transformers": {"embed", "vlm"},
    "av": {"planes", "video", "colours", "stamps"},
    "pyarrow": {
        "copying",
        "store",
        "progress_table",
        "parquet",
        "lerobot",
        "metadata",
        "cells",
        "rows",
        "columns",
        "record",
        "recording",
        "doctor",
        "annotation",
    },
    "matplotlib": {"plots", "report"},
    "jinja2": {"report"},
    "rich": {"console"},
    "tyro": {"commands", "cli", "models"},
    "metaworld": {"sim"},
    "mujoco": {"sim"},
    "gymnasium": {"sim"},
    "huggingface_hub": {"hub"},
    "httpx2": {"vlm"},
    "pydantic": {"annotation"},
    "wandb": {"tracking"},
    "tensorboard": {"tracking"},
    "trackio": {"tracking"},
    "starlette": {"viewer"},
    "uvicorn": {"viewer"},
    "PIL": {"cells", "lerobot", "metadata", "parquet", "recording", "vlm", "annotation", "render"},
}


def modules() -> dict[Path, str]:
    """Every file with the name of its room: `models/sarm/model.py` is in `models`."""
    return {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, inside a function) of every import."""
    found = []
    tree = ast.parse(path.read_text())
    nested = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [(name, node.lineno, id(node) in nested) for name in names]
    return found


def test_every_module_has_a_layer() -> None:
    rooms = set(modules().values()) - {"__init__"}
    assert rooms == set.union(*LAYERS)


def test_imports_point_downwards() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for path, room in modules().items():
        for name, line, _ in imports(path):
            if room == "__init__" or not name.startswith("milepost."):
                continue
            target = name.split(".")[1]
            if target != room and level[target] >= level[room]:
                wrong.append(f"{path.name}:{line} {room} imports {target}")
    assert not wrong


def test_nothing_of_ours_is_imported_inside_a_function() -> None:
    wrong = [f"{path.name}:{line}" for path in modules() for name, line, inside in imports(path) if inside and name.startswith("milepost")]
    assert not wrong


def test_heavy_packages_keep_to_their_addresses() -> None:
    wrong = []
    for path, room in modules().items():
        for name, line, _ in imports(path):
            package = name.split(".")[0]
            if package in HEAVY and room not in HEAVY[package]:
                wrong.append(f"{path.name}:{line} {room} imports {package}")
    assert not wrong


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import milepost", set(HEAVY)),
        ("import milepost.cli; milepost.cli.main(['--help'])", set(HEAVY)),
        ("import milepost.weights, milepost.stages, milepost.windows, milepost.metrics", set(HEAVY)),
        ("import milepost.sample_weights", {"torch", "matplotlib", "av", "rich"}),
        ("import milepost.vlm.server", {"torch", "transformers"}),
        ("import milepost.lerobot", {"torch", "matplotlib", "tyro", "metaworld", "mujoco"}),
    ],
)
def test_the_front_door_loads_nothing_heavy(code: str, absent: set[str]) -> None:
    script = f"{code}\nimport sys\nprint(sorted(set(m.split('.')[0] for m in sys.modules) & {absent!r}))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]"), out.stdout


def test_the_public_names_exist() -> None:
    import milepost

    assert all(getattr(milepost, name) is not None for name in milepost.__all__)
    assert not callable(getattr(milepost, "nothing", None))
