"""Which versions are installed: `python tools/lock.py` writes the newest and the lowest that pyproject.toml allows; `--oldest` the latter.

The newest are pip's own resolution (`pip install --dry-run --report`; nothing is installed) under each Python that is found, written to
constraints/py311.txt and so on; the file of a Python that is not here stays as it was, which is said. The lowest, constraints/oldest.txt,
come from pyproject.toml alone. There are no hashes and no local versions: torch 2.13.0 may be the build for a CPU or for CUDA.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "constraints"
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = "sim,dev"
"""What `make setup` installs."""


def pinned(report: dict) -> str:
    """Returns a constraints file from pip's report of what it would install.

    >>> pinned({"install": [{"metadata": {"name": "torch", "version": "2.13.0+cpu"}}]})
    'torch==2.13.0\\n'
    """
    versions = {canonicalize_name(each["metadata"]["name"]): Version(each["metadata"]["version"]).public for each in report["install"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()) if name != "milepost")


def oldest(project: dict) -> str:
    """Returns the lowest version that pyproject.toml's [project] allows of each package it names; the highest of several bounds.

    >>> oldest({"dependencies": ["av>=15", "torch>=2.7,<2.14"], "optional-dependencies": {"dev": ["av>=16.1"]}})
    'av==16.1\\ntorch==2.7\\n'
    """
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lowest: dict[str, Version] = {}
    for line in map(Requirement, lines):
        name = canonicalize_name(line.name)
        bounds = [Version(each.version) for each in line.specifier if each.operator in (">=", "==", "~=")]
        if bounds:
            lowest[name] = max([*bounds, *filter(None, [lowest.get(name)])])
    return "".join(f"{name}=={version}\n" for name, version in sorted(lowest.items()))


def interpreter(python: str) -> Path | None:
    """Returns a Python of this version that runs: from the PATH, or pyenv's."""
    own = [Path(sys.executable)] if f"{sys.version_info.major}.{sys.version_info.minor}" == python else []
    there = [Path(path) for path in [shutil.which(f"python{python}")] if path]
    managed = sorted(Path.home().glob(f".pyenv/versions/{python}.*/bin/python"))
    for path in [*own, *there, *managed]:
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def resolve(python: str) -> str:
    """Writes one constraints file; returns a line about it."""
    path = FOLDER / f"py{python.replace('.', '')}.txt"
    executable = interpreter(python)
    if executable is None:
        return f"{path.relative_to(ROOT)}: no Python {python} here, left as it was"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([executable, "-m", "venv", folder], check=True)
        report = Path(folder) / "report.json"
        asked = ["install", "--quiet", "--dry-run", "--ignore-installed", "--report", report, f"{ROOT}[{EXTRAS}]"]
        run = subprocess.run([Path(folder) / "bin/python", "-m", "pip", *asked], capture_output=True, text=True, check=False)
        if run.returncode:
            return f"{path.relative_to(ROOT)}: pip found no resolution, left as it was: {run.stderr.strip().splitlines()[-1:]}"
        before = path.read_text() if path.is_file() else ""
        path.write_text(pinned(json.loads(report.read_text())))
    changed = set(path.read_text().splitlines()) - set(before.splitlines())
    return f"{path.relative_to(ROOT)}: {len(path.read_text().splitlines())} packages, {len(changed)} changed: {' '.join(sorted(changed))}"


def main() -> int:
    """Writes what is asked for; returns 1 if a file could not be refreshed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oldest", action="store_true", help="write constraints/oldest.txt alone, which needs no network")
    parser.add_argument("--python", nargs="*", default=PYTHONS, help="which versions of Python")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (FOLDER / "oldest.txt").write_text(oldest(project))
    if args.oldest:
        return 0
    with ThreadPoolExecutor() as threads:  # pip waits for the index most of the time
        lines = list(threads.map(resolve, args.python))
    print("\n".join(lines))
    return int(any("left as it was" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
