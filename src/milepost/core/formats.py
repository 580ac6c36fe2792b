"""The version of a file's form: the files that milepost writes for later say it, and those of a later form are refused.

Which columns and keys a file has is in `schemas/`, a JSON file for each kind; docs/file_formats.md shows the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.core.errors import DataError
from milepost.core.files import shown

FORM_VERSION = 1
FORMAT_KEY = "milepost_format"
FORM_METADATA = {FORMAT_KEY: str(FORM_VERSION)}
"""What the metadata of a parquet file says of its form. The key is beside the provenance (`milepost.*`), because it changes no label."""


def require_format(version: Any, path: Path) -> None:
    """Raises DataError if a file has a later form than this release reads. Files without a version are of an earlier release, or others'.

    >>> require_format("1", Path("sarm_progress.parquet"))
    """
    if version is None:
        return
    try:
        is_later = int(version) > FORM_VERSION
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the version of its form should be a number, got {shown(version)}") from error
    if is_later:
        raise DataError(
            f"{path} has form {int(version)}, and this release of milepost reads forms up to {FORM_VERSION}: a later release wrote it; "
            "pip install --upgrade milepost"
        )


def require_parquet_format(metadata: Mapping[bytes, bytes] | None, path: Path) -> None:
    """Raises DataError as `require_format` does. metadata: of the parquet file's schema; None if it has none.

    >>> require_parquet_format({b"milepost_format": b"1"}, Path("sarm_progress.parquet"))
    """
    version = (metadata or {}).get(FORMAT_KEY.encode())
    require_format(None if version is None else version.decode(errors="replace"), path)
