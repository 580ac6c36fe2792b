"""The version of a file's form: the files that milepost writes for later say it, and those of a later form are refused.

Which columns and keys a file has is in `schemas/`, a JSON file for each kind; docs/file_formats.md shows the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost.core.errors import DataError
from milepost.core.files import shown

FORMAT = 1
FORMAT_KEY = "milepost_format"
"""The key in the metadata of a parquet file. It is beside the provenance (`milepost.*`), because it changes no label."""


def require_format(version: Any, path: Path) -> None:
    """Raises DataError if a file has a later form than this release reads. Files without a version are of an earlier release, or others'.

    >>> require_format("1", Path("sarm_progress.parquet"))
    """
    if version is None:
        return
    if isinstance(version, bytes):  # as the metadata of a parquet file has it
        version = version.decode(errors="replace")
    try:
        is_later = int(version) > FORMAT
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the version of its form should be a number, got {shown(version)}") from error
    if is_later:
        raise DataError(
            f"{path} has form {int(version)}, and this release of milepost reads forms up to {FORMAT}: a later release wrote it; "
            "pip install --upgrade milepost"
        )
