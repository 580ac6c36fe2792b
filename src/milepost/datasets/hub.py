"""Where the files of a dataset or model are: a local folder, or a Hub repository of which only the files asked for are downloaded.

A folder inside the Hub's cache is the Hub repository it belongs to, and like one it is never written into. `hf://datasets/owner/name/FILE`
names one file. Nothing is ever written here but the Hub's own cache, and nothing uploaded but a model or annotations whose repository was
named. The only module that imports huggingface_hub, and only when it is needed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from milepost.core import DataError, read_json_object, real_path, require_inside

UPLOADED = ("README.md", "config.json", "model.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HF = re.compile(r"hf:/{1,2}datasets/(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
"""One slash as well: a path takes two for one."""
REASON = 600


@dataclass(frozen=True)
class Files:
    """A dataset's files. root: the folder with meta/. repo and commit: None for a local folder."""

    root: Path
    name: str
    repo: str | None = None
    commit: str | None = None

    def path(self, relative: str) -> Path:
        """Where this file is; downloaded first if it is on the Hub and not here yet. A local file may be missing.

        DataError if it lies outside the dataset: by its name, or as a link to a file elsewhere. Whole folders may be links (to another
        disk); in the Hub's cache every file is one, to the repository's other files.
        """
        path = self.root / require_inside(relative, source=f"{self.root}")
        if self.repo is not None and not path.exists():
            path = Path(_fetch("hf_hub_download", self.repo, self.commit, filename=relative))
        if not self.holds(relative):
            raise DataError(f"{path} is a link to a file outside the dataset, which is not read; put the file itself there")
        return path

    def holds(self, relative: str) -> bool:
        """Returns whether this name is one of a file inside the dataset, whether it is here yet or not. Downloads nothing."""
        try:
            path = self.root / require_inside(relative, source="")
        except DataError:
            return False
        return not path.is_symlink() or real_path(path).is_relative_to(self._home)

    @property
    def _home(self) -> Path:
        """The folder that links of files must stay in: of a snapshot in the Hub's cache its repository's, which has the files."""
        root = real_path(self.root)
        return root.parent.parent if root.parent.name == "snapshots" and root.parent.parent.name.startswith("datasets--") else root

    def listed(self, tree: str) -> list[str]:
        """Returns the names of the files under a folder of the dataset, relative to it, but hidden ones; links of folders are followed."""
        found, targets = [], set()
        for folder, folders, names in os.walk(self.root / tree, followlinks=True):
            target = os.path.realpath(folder)
            if target in targets:
                folders.clear()  # a link to a folder above itself
                continue
            targets.add(target)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            relative = Path(folder).relative_to(self.root)
            found += [
                (relative / name).as_posix() for name in sorted(names) if not name.startswith(".") and (Path(folder) / name).is_file()
            ]
        return found

    def beside(self, pattern: str) -> list[Path]:
        """The files in the dataset's own folder whose names match, sorted; of a Hub dataset they are downloaded. They may not be reachable:
        then those that are here already."""
        if self.repo is not None:
            with contextlib.suppress(DataError):
                _fetch("snapshot_download", self.repo, self.commit, allow_patterns=[pattern])
        return sorted(self.root.glob(pattern))


def is_hub_id(name: str) -> bool:
    """Could this be the name of a Hub repository, `owner/name`, and no path that climbs or begins somewhere?"""
    return _HUB_ID.fullmatch(name) is not None


def find_files(folder_or_repo: str | Path, revision: str | None = None) -> Files:
    """A local folder, or (only if there is no such folder) the Hub dataset `owner/name`, whose meta/ is downloaded.

    A folder of the Hub's cache is the Hub dataset at that commit. DataError if there is neither, or if the Hub cannot be reached and has
    nothing in the cache.
    """
    named = _HF.fullmatch(str(folder_or_repo))
    if named and not named["file"]:
        folder_or_repo, revision = named["repo"], revision or named["revision"]
    folder = Path(folder_or_repo).expanduser().absolute()  # Arrow and FFmpeg take what stands before a colon for a protocol
    if folder.is_dir():
        repo, commit = _cached(real_path(folder))
        return Files(folder, repo or real_path(folder).name, repo, commit)
    if folder.exists():
        raise DataError(f"{folder} is a file; a LeRobot dataset is a folder with meta/info.json in it")
    repo = str(folder_or_repo)
    if not is_hub_id(repo):
        raise DataError(f"there is no folder {folder}, and it is not a Hub dataset id like 'lerobot/pusht'")
    root = Path(_fetch("snapshot_download", repo, revision, allow_patterns=["meta/**"]))
    return Files(root, repo, repo, root.name)


def find_file(path: Path) -> Path:
    """The file itself, or where the Hub's file `hf://datasets/owner/name/FILE` is, downloaded. DataError if it cannot be had."""
    named = _HF.fullmatch(str(path))
    if named is None:
        return path
    if not named["file"]:
        raise DataError(f"{path} names a dataset; a file of it is named as in hf://datasets/{named['repo']}/sarm_progress.parquet")
    return Path(_fetch("hf_hub_download", named["repo"], named["revision"], filename=named["file"]))


def in_cache(path: Path) -> bool:
    """Does this path lie in the Hub's cache, which is shared by all and never edited?

    The Hub's layout: datasets--OWNER--NAME/snapshots/COMMIT/..., whose files are links to datasets--OWNER--NAME/blobs/...
    """
    after = zip(path.parts, path.parts[1:], strict=False)
    return any(part.startswith(("datasets--", "models--")) and following in ("snapshots", "blobs") for part, following in after)


def _cached(folder: Path) -> tuple[str | None, str | None]:
    """(owner/name, commit) of a snapshot in the Hub's cache, (None, None) of any other folder."""
    kind, _, name = folder.parent.parent.name.partition("--")
    if kind != "datasets" or folder.parent.name != "snapshots" or "--" not in name:
        return None, None
    return name.replace("--", "/", 1), folder.name


def find_model(folder_or_repo: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model: a local one, or (only if there is none) that of the Hub model `owner/name`, downloaded.

    DataError if the Hub cannot be reached and has nothing in the cache. A local folder may turn out not to be a model.
    """
    folder, repo = Path(folder_or_repo).expanduser(), str(folder_or_repo)
    if folder.exists() or not is_hub_id(repo):
        return folder
    return Path(_fetch("snapshot_download", repo, revision, kind="model", allow_patterns=["*.json", "*.safetensors"]))


def revision_of(folder: Path) -> str:
    """The commit a folder in the Hub's cache was downloaded at; empty for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else ""


def require_repository(repo: str) -> None:
    """DataError unless this is the name of a Hub repository, `owner/name`."""
    if not is_hub_id(repo):
        raise DataError(f"nothing is uploaded unless a repository is named, as in push_to_hub('owner/name'); got '{repo}'")


def upload_model(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a saved model to the Hub repository `owner/name`, made if it is not there; returns its address. DataError if refused.

    Card, config and weights alone: a folder that was trained in holds more (`last/`, a checkpoint, logs).
    """
    require_repository(repo)
    import huggingface_hub

    try:
        address = huggingface_hub.create_repo(repo, private=private, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(UPLOADED))
    except _failures() as error:
        reason = _reason(error)
        raise DataError(f"the model could not be uploaded to '{repo}': {reason}") from error
    return str(address)


def require_same_dataset(root: Path, repo: str) -> None:
    """DataError unless the Hub dataset `owner/name` is there and is this folder's: as many episodes and frames, at one rate."""
    require_repository(repo)
    ours, theirs = (
        read_json_object(path) for path in (root / "meta/info.json", Path(_fetch("hf_hub_download", repo, None, filename="meta/info.json")))
    )
    facts = ("codebase_version", "total_episodes", "total_frames", "fps")
    if other := [name for name in facts if ours.get(name) != theirs.get(name)]:
        said = ", ".join(f"{name} {theirs.get(name)} there, {ours.get(name)} here" for name in other)
        raise DataError(f"the Hub dataset '{repo}' is another one ({said}); annotations go only into a copy of the same dataset")


def upload_dataset_files(root: Path, repo: str, patterns: Sequence[str]) -> str:
    """Upload the files of a dataset folder that match to the Hub dataset `owner/name`, in one commit; returns its address.

    The repository must hold the same dataset already, see `require_same_dataset`: what is not uploaded here stays. DataError if refused.
    """
    require_same_dataset(root, repo)
    import huggingface_hub

    settings: dict[str, Any] = {"repo_type": "dataset", "commit_message": "Subtask annotations"}
    try:
        huggingface_hub.upload_folder(repo_id=repo, folder_path=root, allow_patterns=list(patterns), **settings)
    except _failures() as error:
        reason = _reason(error)
        raise DataError(f"the annotations could not be uploaded to '{repo}': {reason}") from error
    return f"https://huggingface.co/datasets/{repo}"


def _failures() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors

    # HfHubHTTPError is built on the HTTP library's own base error (requests, httpx or httpx2, by version): its bases cover a
    # dropped connection whichever library is underneath.
    network: Any = errors.HfHubHTTPError.__bases__
    # ImportError: a SOCKS proxy in the environment whose package is missing
    return (OSError, ImportError, errors.EntryNotFoundError, errors.HFValidationError, *network)


def _reason(error: Exception) -> str:
    """The whole of what the Hub says, on one line: its first line is but a status, what to do stands below."""
    if isinstance(error, ImportError) and "socks" in str(error).lower():
        return "the environment names a SOCKS proxy, which needs a package: pip install socksio"
    words = str(error).strip() or type(error).__name__
    says = getattr(error, "server_message", None)
    if isinstance(says, str) and says.strip() and says not in words:
        words = f"{words} {says}"
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return line if len(line) <= REASON else f"{line[:REASON]}..."


def _fetch(function: str, repo: str, revision: str | None, *, kind: str = "dataset", **arguments: Any) -> str:
    import huggingface_hub

    failures = _failures()
    download = partial(getattr(huggingface_hub, function), repo, repo_type=kind, revision=revision, **arguments)
    try:
        return str(download())
    except failures as error:
        reached = error
    try:  # what was downloaded before is as good; not every version looks there by itself
        return str(download(local_files_only=True))
    except failures as error:
        file = f"{arguments['filename']} of " if "filename" in arguments else ""
        at = f" at revision '{revision}'" if revision else ""
        reason = _reason(reached)
        raise DataError(
            f"{file}the Hub {kind} '{repo}'{at} could not be downloaded, and there is no local folder of that name: {reason}"
        ) from error
