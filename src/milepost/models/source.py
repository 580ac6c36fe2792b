"""What identifies a model of another package that has no `identity()`: its code, and the files that it was loaded from."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from milepost.core import RewardModel


def source_hash(model: RewardModel, folder: Path | None) -> str:
    """Returns a hash of the Python files of the model's package, or of its one module, and of all files in its folder, None if it
    needs none.

    "" if its code is in no file, such as in a notebook: then it cannot be told from another model.
    """
    package = sys.modules.get(type(model).__module__.partition(".")[0])
    places = [Path(place) for place in getattr(package, "__path__", [])]
    file = getattr(package, "__file__", None)
    code = sorted(path for place in places for path in place.rglob("*.py")) if places else [Path(file)] if file else []
    if not code or type(model).__module__ == "__main__":
        return ""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    files = [] if folder is None or not folder.is_dir() else sorted(path for path in folder.rglob("*") if path.is_file())
    for path in [*code, *files]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
