"""Packages that offer reward models, put on the path as pip would."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from milepost.models import registry


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *, name: str = "brightness", offer: str = "MODEL", package: str = "bright"
) -> None:
    """Puts a package with one entry point on the path."""
    module = f"{package}_{abs(hash(code)) % 10**8}"
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    about = folder / f"{package}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {module}:{offer}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
