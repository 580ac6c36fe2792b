"""What `validate` returns: the content of a dataset in numbers, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from milepost.core import Brief
from milepost.datasets.findings import Finding


@dataclass(frozen=True)
class Camera:
    """A camera of the dataset in info.json. kind: "video" or "image"."""

    name: str
    kind: str
    height: int | None
    width: int | None
    codec: str | None


@dataclass(frozen=True, repr=False)
class DatasetReport(Brief):
    """The result of `validate`. tasks: instruction -> episodes. annotated: head -> episodes whose annotation can be used; unusable: head ->
    those that have one which cannot. succeeded: of the `judged` episodes.

    cameras: those that `open_dataset` uses by itself; depth: those that it uses only by name.
    """

    name: str
    version: str
    robot: str | None
    fps: float
    episodes: int
    frames: int
    tasks: Mapping[str, int] = field(default_factory=dict)
    cameras: tuple[Camera, ...] = ()
    depth: tuple[str, ...] = ()
    state: int | None = None
    action: int | None = None
    annotated: Mapping[str, int] = field(default_factory=dict)
    unusable: Mapping[str, int] = field(default_factory=dict)
    succeeded: int = 0
    judged: int = 0
    progress_files: tuple[str, ...] = ()
    weight_files: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def duration_s(self) -> float:
        """Returns the duration of all episodes together, in seconds."""
        return self.frames / self.fps if self.fps > 0 else 0.0

    def count(self, severity: str) -> int:
        """Returns the number of findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Returns whether there is no error; there may be warnings and notes."""
        return not self.count("error")

    def to_dict(self) -> dict[str, Any]:
        """Returns the report in JSON's types."""
        return {**asdict(self), "duration_s": self.duration_s, "healthy": self.healthy}
