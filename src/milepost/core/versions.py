"""The releases of other packages that this code works with. A wrong one is refused where it is first used; the message says how to mend it.

Only packages that are known to break are listed here. pyproject.toml has all ranges, `constraints/` the tested releases, and
docs/dependencies.md the reasons.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from traceback import walk_tb
from types import ModuleType

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from milepost.core.errors import DataError

WORKING = {
    "av": ">=15",
    "bitsandbytes": ">=0.46",
    "gymnasium": ">=1.2,<2",
    "h5py": ">=3.12.1",
    "httpx2": ">=2,<3",
    "metaworld": ">=3.1.1,<3.2",
    "peft": ">=0.18",
    "ray": ">=2.54",
    "stable-baselines3": ">=2.7",
    "tensorflow-datasets": ">=4.9",
    "torchrl": ">=0.14",
    "transformers": ">=5.4,<6",
    "wandb": ">=0.19",
    "zarr": ">=3.0.8,<4",
}
"""Distribution -> releases. Each bound is also in pyproject.toml."""


@cache
def require(package: str) -> None:
    """Raises DataError if the installed release of a package does not work here. A package that is not installed passes.

    >>> require("transformers")
    """
    try:
        release = version(package)
    except PackageNotFoundError:
        return
    bounds = WORKING[canonicalize_name(package)]
    if not SpecifierSet(bounds).contains(release, prereleases=True):
        raise DataError(f"{package} {release} is installed, milepost works with {package}{bounds}: {mending(package)}")


def mending(package: str) -> str:
    """Returns the command that installs a release that works.

    >>> mending("transformers")
    "pip install 'transformers>=5.4,<6'"
    """
    return f"pip install '{package}{WORKING[canonicalize_name(package)]}'"


def import_fault(error: BaseException) -> str:
    """Returns, as the rest of a sentence, what is missing or broken where importing a package failed: packages hide it behind errors of
    their own.
    """
    root = error
    while (before := root.__cause__ or root.__context__) is not None:
        root = before
    if isinstance(root, ModuleNotFoundError) and root.name:
        return f"needs {root.name}: pip install {root.name}"
    reason = (str(root).strip() or type(root).__name__).splitlines()[0].rstrip(".")
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(root.__traceback__) if frame.f_code.co_name == "<module>"]
    broken = modules[-1].partition(".")[0] if modules else ""
    what = f"cannot be imported, because {broken} is broken" if broken and broken != "__main__" else "cannot be imported"
    return f"{what}: {reason}" + (f"; install a release of {broken} that fits the others, or uninstall it" if broken else "")


def load(package: str, *, purpose: str, install: str) -> ModuleType:
    """Imports an optional package and returns it. install: the argument of pip; purpose: what needs the package, in the plural.

    Raises DataError if the package is not installed, if its release does not work, or if it refuses other installed packages itself.
    """
    require(package)
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise DataError(f"{purpose} need {package}: pip install '{install}'") from error
        raise DataError(f"{purpose} need {package}, which {import_fault(error)}") from error
    except (RuntimeError, AttributeError, OSError) as error:  # so a package fails whose compiled part does not fit
        raise DataError(f"{purpose} need {package}, which {import_fault(error)}") from error
    except ImportError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{purpose} need {package}, which refuses what is installed beside it: {reason}; {mending(package)}") from error
