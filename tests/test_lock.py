"""What was tested is what is installed: constraints/ fits pyproject.toml, and was made from it."""

import importlib.util
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from milepost.vlm import layers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [f"py{version.replace('.', '')}" for version in ("3.11", "3.12", "3.13")]


def lock():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions(name: str) -> dict[str, str]:
    return dict(line.split("==") for line in (ROOT / "constraints" / f"{name}.txt").read_text().splitlines())


def installed_by_setup() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [*map(Requirement, [*PROJECT["dependencies"], *extras["sim"], *extras["dev"]])]


@pytest.mark.parametrize("name", FILES)
def test_every_package_of_setup_is_pinned_within_its_range(name: str) -> None:
    pins = versions(name)
    wanted = {canonicalize_name(each.name): each.specifier for each in installed_by_setup()}
    assert not {package: (pins.get(package), str(there)) for package, there in wanted.items() if pins.get(package) not in there}, (
        "make lock"
    )
    assert not [version for version in pins.values() if "+" in version], "a local version is to be had on one machine alone"


@pytest.mark.parametrize("name", FILES)
def test_the_transformers_that_is_installed_is_one_whose_layers_are_known(name: str) -> None:
    assert versions(name)["transformers"] in SpecifierSet(layers.TESTED), "run tests/vlm with it, then raise layers.TESTED"


def test_the_lowest_bounds_are_those_of_pyproject() -> None:
    assert (ROOT / "constraints" / "oldest.txt").read_text() == lock().oldest(PROJECT), "python tools/lock.py --oldest"


def test_the_lowest_of_several_bounds() -> None:
    extras = {"dev": ["av>=16.1", "pytest", "Py_Test>=2"], "sim": ["mujoco==3.3.0"]}
    made = lock().oldest({"dependencies": ["av>=15,<19", "torch<2.14,>=2.7"], "optional-dependencies": extras})
    assert made == "av==16.1\nmujoco==3.3.0\npy-test==2\ntorch==2.7\n"


def test_pins_come_from_pips_report() -> None:
    named = [("torch", "2.13.0+cpu"), ("typing_extensions", "4.16.0"), ("milepost", "0.1.0"), ("Jinja2", "3.1.6")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in named]}
    assert lock().pinned(report) == "jinja2==3.1.6\ntorch==2.13.0\ntyping-extensions==4.16.0\n"
