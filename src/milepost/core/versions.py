"""Releases of other packages that this code is known to work with; others are refused where they are first used, with the way to mend it.

Only what is known to break stands here. pyproject.toml has the whole ranges, `constraints/` what was tested, docs/dependencies.md why.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from packaging.specifiers import SpecifierSet

from milepost.core.types import DataError

WORKING = {
    "av": ">=15",
    "bitsandbytes": ">=0.46",
    "httpx2": ">=2,<3",
    "metaworld": ">=3.1.1,<3.2",
    "transformers": ">=5.4,<6",
    "wandb": ">=0.19",
}
"""Distribution -> releases. Each bound is one of pyproject.toml's."""


@cache
def require(package: str) -> None:
    """Raises DataError if the installed release of a package is known not to work here. One that is not installed passes.

    >>> require("transformers")
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        return
    if not SpecifierSet(WORKING[package]).contains(installed, prereleases=True):
        raise DataError(f"{package} {installed} is installed, milepost works with {package}{WORKING[package]}: {mending(package)}")


def mending(package: str) -> str:
    """Returns the command that installs a release that works.

    >>> mending("transformers")
    "pip install 'transformers>=5.4,<6'"
    """
    return f"pip install '{package}{WORKING[package]}'"


def load(package: str, *, purpose: str, install: str) -> ModuleType:
    """Imports a package that few need. install: what pip is given to have it; purpose: what needs it, in the plural.

    DataError if it is not installed, is of a release known not to work, or itself refuses the packages it finds installed.
    """
    require(package)
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise DataError(f"{purpose} need {package}, which needs {error.name}: pip install {error.name}") from error
        raise DataError(f"{purpose} need {package}: pip install '{install}'") from error
    except ImportError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{purpose} need {package}, which refuses what is installed beside it: {reason}; {mending(package)}") from error
