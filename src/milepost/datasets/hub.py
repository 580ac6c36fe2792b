"""Finds the files of a dataset or model: in a local folder, or in a Hub repository, of which only the needed files are downloaded.
At other addresses (s3:// and the like) `remote.py` does the same for datasets.

A folder inside the Hub's cache counts as the Hub repository it belongs to and is never written into. `hf://datasets/owner/name/FILE` names
one file. Only the Hub's own cache is written, and only a model or annotations are uploaded, to a repository that the user named. This is
the only module that imports huggingface_hub, and it does so on first use.
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
from milepost.datasets.remote import Remote, is_address, one_line, open_remote, remote_folder, remote_of

UPLOADED = ("README.md", "config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors", "heads.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HF = re.compile(r"hf:/{1,2}datasets/(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
"""One slash as well: a path takes two for one."""


@dataclass(frozen=True)
class Files:
    """The files of a dataset. root: the folder with meta/. repo and commit: of the Hub, or the address and a hash of its files; None for a
    local folder. remote: what is at the address."""

    root: Path
    name: str
    repo: str | None = None
    commit: str | None = None
    remote: Remote | None = None

    @property
    def never_written(self) -> str:
        """Returns why nothing is written beside the dataset, the first part of a sentence."""
        return f"a {'Hub' if self.remote is None else 'remote'} dataset is never written into"

    def path(self, relative: str) -> Path:
        """Returns the path of a file; a file of a Hub dataset is downloaded first. A local file may be missing.

        Raises DataError if the file lies outside the dataset, by its name or as a link. Folders may be links, for instance to another disk.
        In the Hub's cache every file is a link to the repository's blobs.
        """
        path = self.root / require_inside(relative, source=f"{self.root}")
        if self.remote is not None:
            return self.remote.fetch(relative)
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
        """Returns the folder that links must stay in: the dataset's own, or, for a snapshot in the Hub's cache, the folder of its
        repository.
        """
        root = real_path(self.root)
        return root.parent.parent if root.parent.name == "snapshots" and root.parent.parent.name.startswith("datasets--") else root

    def listed(self, tree: str) -> list[str]:
        """Returns the names of the files under a folder of the dataset, relative to it, but hidden ones; links of folders are followed."""
        names, targets = [], set()
        for folder, folders, file_names in os.walk(self.root / tree, followlinks=True):
            target = os.path.realpath(folder)
            if target in targets:
                folders.clear()  # a link to a folder above itself
                continue
            targets.add(target)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            relative = Path(folder).relative_to(self.root)
            names += [
                (relative / name).as_posix() for name in sorted(file_names) if not name.startswith(".") and (Path(folder) / name).is_file()
            ]
        return names

    def beside(self, pattern: str) -> list[Path]:
        """Returns the files in the dataset's own folder that match, sorted; those of a Hub dataset are downloaded.

        If the Hub cannot be reached, the files that were downloaded before are returned.
        """
        if self.remote is not None:
            return [path for path in self.remote.fetch_all(pattern) if path.parent == self.root]
        if self.repo is not None:
            with contextlib.suppress(DataError):
                _fetch("snapshot_download", self.repo, self.commit, allow_patterns=[pattern])
        return sorted(self.root.glob(pattern))


def is_hub_id(name: str) -> bool:
    """Returns whether this can be the name of a Hub repository, `owner/name`, and is not a path."""
    return _HUB_ID.fullmatch(name) is not None


def find_files(folder_or_repo: str | Path, revision: str | None = None) -> Files:
    """Returns the files of a local folder or, if there is no such folder, of the Hub dataset `owner/name`, whose meta/ is downloaded.

    A folder of the Hub's cache is the Hub dataset at that commit. Raises DataError if there is neither, or if the Hub cannot be reached and
    the cache has nothing.
    """
    match = _HF.fullmatch(str(folder_or_repo))
    if match and not match["file"]:
        folder_or_repo, revision = match["repo"], revision or match["revision"]
    elif is_address(str(folder_or_repo)):
        if revision is not None:
            raise DataError(f"--revision is for datasets of the Hub, and {folder_or_repo} is another address; leave it out")
        return _files_of(open_remote(str(folder_or_repo)))
    folder = Path(folder_or_repo).expanduser().absolute()  # Arrow and FFmpeg take what stands before a colon for a protocol
    if folder.is_dir():
        if (remote := remote_of(folder)) is not None:
            return _files_of(remote)
        repo, commit = _cached(real_path(folder))
        return Files(folder, repo or real_path(folder).name, repo, commit)
    if folder.exists():
        raise DataError(f"{folder} is a file; a LeRobot dataset is a folder with meta/info.json in it")
    repo = str(folder_or_repo)
    if not is_hub_id(repo):
        raise DataError(f"there is no folder {folder}, and it is not a Hub dataset id like 'lerobot/pusht'")
    root = Path(_fetch("snapshot_download", repo, revision, allow_patterns=["meta/**"]))
    return Files(root, repo, repo, root.name)


def _files_of(remote: Remote) -> Files:
    return Files(remote.root, remote.address, remote.address, remote.commit, remote)


def find_file(path: Path) -> Path:
    """Returns the path itself, or that of the Hub's file `hf://datasets/owner/name/FILE`, downloaded. Raises DataError if that fails."""
    match = _HF.fullmatch(str(path))
    if match is None:
        return path
    if not match["file"]:
        raise DataError(f"{path} names a dataset; a file of it is named as in hf://datasets/{match['repo']}/sarm_progress.parquet")
    return Path(_fetch("hf_hub_download", match["repo"], match["revision"], filename=match["file"]))


def cache_name(path: Path) -> str:
    """Returns the name of the cache that a path lies in, which all programs share and nobody edits; "" if it lies in none.

    The Hub's layout is datasets--OWNER--NAME/snapshots/COMMIT/..., whose files are links to datasets--OWNER--NAME/blobs/...; nothing else
    belongs into such a folder, or into the one that holds them, which the environment names.
    """
    above = {path.absolute(), *path.absolute().parents}
    if above & {remote_folder().absolute(), real_path(remote_folder())}:
        return "milepost's cache of remote datasets"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "hub").expanduser()
    is_layout = any(part.startswith(("datasets--", "models--")) and part.count("--") >= 2 for part in path.parts)
    return "the Hub's cache" if is_layout or cache.absolute() in above else ""


def in_cache(path: Path) -> bool:
    """Returns whether a path lies in the Hub's cache, or among our copies of remote datasets."""
    return cache_name(path) != ""


def _cached(folder: Path) -> tuple[str | None, str | None]:
    """Returns (owner/name, commit) of a snapshot in the Hub's cache, (None, None) of any other folder."""
    kind, _, name = folder.parent.parent.name.partition("--")
    if kind != "datasets" or folder.parent.name != "snapshots" or "--" not in name:
        return None, None
    return name.replace("--", "/", 1), folder.name


def find_model(folder_or_repo: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a saved model: a local one or, if there is none, that of the Hub model `owner/name`, downloaded.

    Raises DataError if the Hub cannot be reached and the cache has nothing. A local folder is not checked to be a model.
    """
    folder, repo = Path(folder_or_repo).expanduser(), str(folder_or_repo)
    if folder.exists() or not is_hub_id(repo):
        return folder
    return Path(_fetch("snapshot_download", repo, revision, kind="model", allow_patterns=["*.json", "*.safetensors"]))


def find_model_config(folder_or_repo: str | Path) -> Path:
    """Returns the folder in which a saved model's config.json is, as `find_model` does; of a Hub model nothing else is downloaded."""
    folder, repo = Path(folder_or_repo).expanduser(), str(folder_or_repo)
    if folder.exists() or not is_hub_id(repo):
        return folder
    return Path(_fetch("snapshot_download", repo, None, kind="model", allow_patterns=["config.json"]))


def revision_of(folder: Path) -> str:
    """Returns the commit of a folder in the Hub's cache, "" for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else ""


def require_repository(repo: str) -> None:
    """Raises DataError unless this is the name of a Hub repository, `owner/name`."""
    if not is_hub_id(repo):
        raise DataError(f"nothing is uploaded unless a repository is named, as in push_to_hub('owner/name'); got '{repo}'")


def upload_model(folder: Path, repo: str, *, private: bool) -> str:
    """Uploads a saved model to the Hub repository `owner/name`, which is created if missing. Returns its address.

    Only card, config and weights are uploaded: a training folder holds more (`last/`, a checkpoint, logs). Raises DataError if the Hub
    refuses.
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
    """Raises DataError unless the Hub dataset `owner/name` exists and is the one in this folder.

    Both must have the same version, frame rate and numbers of episodes and frames.
    """
    require_repository(repo)
    ours, theirs = (
        read_json_object(path) for path in (root / "meta/info.json", Path(_fetch("hf_hub_download", repo, None, filename="meta/info.json")))
    )
    facts = ("codebase_version", "total_episodes", "total_frames", "fps")
    if different_names := [name for name in facts if ours.get(name) != theirs.get(name)]:
        differences = ", ".join(f"{name} {theirs.get(name)} there, {ours.get(name)} here" for name in different_names)
        raise DataError(f"the Hub dataset '{repo}' is another one ({differences}); annotations go only into a copy of the same dataset")


def upload_dataset_files(root: Path, repo: str, patterns: Sequence[str]) -> str:
    """Uploads the matching files of a dataset folder to the Hub dataset `owner/name` in one commit. Returns its address.

    The repository must hold the same dataset already, see `require_same_dataset`; its other files stay. Raises DataError if the Hub
    refuses.
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


def upload_progress(path: Path, root: Path, repo: str) -> str:
    """Uploads a progress file beside the Hub dataset `owner/name`, under its own name. Returns its address.

    root: the folder of the dataset that it was made for, which the repository must hold too. Raises DataError if the Hub refuses.
    """
    require_same_dataset(root, repo)
    import huggingface_hub

    try:
        huggingface_hub.upload_file(
            path_or_fileobj=path, path_in_repo=path.name, repo_id=repo, repo_type="dataset", commit_message="Task progress"
        )
    except _failures() as error:
        raise DataError(f"{path.name} could not be uploaded to '{repo}': {_reason(error)}") from error
    return f"https://huggingface.co/datasets/{repo}/blob/main/{path.name}"


def _failures() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors

    # HfHubHTTPError is built on the HTTP library's own base error (requests, httpx or httpx2, by version): its bases cover a
    # dropped connection whichever library is underneath.
    network: Any = errors.HfHubHTTPError.__bases__
    # ImportError: a SOCKS proxy in the environment whose package is missing
    return (OSError, ImportError, errors.EntryNotFoundError, errors.HFValidationError, *network)


def _reason(error: Exception) -> str:
    """Returns the whole message of the Hub on one line: its first line is only a status, and what to do comes after it."""
    if isinstance(error, ImportError) and "socks" in str(error).lower():
        return "the environment names a SOCKS proxy, which needs a package: pip install socksio"
    text = str(error).strip() or type(error).__name__
    server_message = getattr(error, "server_message", None)
    if isinstance(server_message, str) and server_message.strip() and server_message not in text:
        text = f"{text} {server_message}"
    return one_line(text)


def _fetch(function: str, repo: str, revision: str | None, *, kind: str = "dataset", **arguments: Any) -> str:
    import huggingface_hub

    failures = _failures()
    download = partial(getattr(huggingface_hub, function), repo, repo_type=kind, revision=revision, **arguments)
    try:
        return str(download())
    except failures as error:
        first_error = error
    try:  # what was downloaded before is as good; not every version looks there by itself
        return str(download(local_files_only=True))
    except failures as error:
        file = f"{arguments['filename']} of " if "filename" in arguments else ""
        at = f" at revision '{revision}'" if revision else ""
        reason = _reason(first_error)
        raise DataError(
            f"{file}the Hub {kind} '{repo}'{at} could not be downloaded, and there is no local folder of that name: {reason}"
        ) from error
