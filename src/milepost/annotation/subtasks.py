"""The closed list of stages of one head: from the comma-separated flag, or from a file where each may have a description.

Refuses an empty list, blank names, and names that differ only in case, punctuation or articles: an answer could not tell them apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError

from milepost.core import DataError, parse_json, read_text, shown

ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Subtask:
    """One stage. description: what it looks like, for the model. optional: it may be missing. repeatable: it may happen more than once."""

    name: str
    description: str = ""
    optional: bool = False
    repeatable: bool = False

    def __post_init__(self) -> None:
        if not words(self.name) or self.name != self.name.strip() or not self.name.isprintable():
            raise DataError(f"a stage needs a name of one line, without spaces around it, got {shown(self.name)}")


@dataclass(frozen=True)
class SubtaskList:
    """The stages in the order in which they happen. covers: together they fill the episode; else there may be time between them."""

    subtasks: tuple[Subtask, ...]
    covers: bool = True

    def __post_init__(self) -> None:
        if not self.subtasks:
            raise DataError("the list of stages is empty; give at least one name")
        names: dict[tuple[str, ...], str] = {}
        for subtask in self.subtasks:
            if (other := names.get(words(subtask.name))) is not None:
                raise DataError(f"the stages '{other}' and '{subtask.name}' are one name to a reader; make them differ, or keep one")
            names[words(subtask.name)] = subtask.name

    def __len__(self) -> int:
        return len(self.subtasks)

    def __iter__(self) -> Iterator[Subtask]:
        return iter(self.subtasks)

    def __getitem__(self, name: str) -> Subtask:
        """Returns the stage of that exact name; KeyError if there is none."""
        return {subtask.name: subtask for subtask in self.subtasks}[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(subtask.name for subtask in self.subtasks)

    @classmethod
    def from_flag(cls, text: str) -> SubtaskList:
        """Returns the list of "reach the cube, grasp it". DataError for nothing between two commas.

        >>> SubtaskList.from_flag("reach, grasp").names
        ('reach', 'grasp')
        """
        names = [part.strip() for part in text.split(",")]
        if not all(names):
            raise DataError(f"stage names are separated by commas, with a name between any two; got {shown(text)}")
        return cls(tuple(Subtask(name) for name in names))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SubtaskList:
        """Returns the list that `dataclasses.asdict` made these fields of."""
        return cls(tuple(Subtask(**each) for each in fields["subtasks"]), bool(fields["covers"]))

    @classmethod
    def from_file(cls, path: Path) -> SubtaskList:
        """Reads a `.json` file (a list of names or objects, or {"subtasks": [...], "covers": false}), else lines of text.

        A line is a name, or "name: description"; empty lines and lines that begin with # are skipped. Objects have the fields of
        `Subtask`. Names may contain commas, in JSON also colons.
        """
        try:
            text = read_text(Path(path), what="list of stages")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the stages from {path}: {error}") from error
        try:
            return _from_json(text) if Path(path).suffix.lower() == ".json" else _from_lines(text)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def words(name: str) -> tuple[str, ...]:
    """Returns a name as a reader compares it: its words in lower case, without punctuation and articles.

    >>> words("Grab the cup, gently!")
    ('grab', 'cup', 'gently')
    """
    all_words = re.findall(r"\w+", unicodedata.normalize("NFKC", name).casefold().replace("_", " "))
    return tuple(word for word in all_words if word not in ARTICLES) or tuple(all_words)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    description: str = ""
    optional: StrictBool = False
    repeatable: StrictBool = False


class _Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    subtasks: list[_Entry]
    covers: StrictBool = True


def _from_json(text: str) -> SubtaskList:
    try:
        content = parse_json(text, source="the list of stages")
        whole = content if isinstance(content, dict) else {"subtasks": content}
        if isinstance(entries := whole.get("subtasks"), list):
            whole = whole | {"subtasks": [{"name": each} if isinstance(each, str) else each for each in entries]}
        validated = _Whole.model_validate(whole)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        wanted = "a list of names, or of objects with name, description, optional, repeatable"
        raise DataError(f"expected {wanted}; {where}: {first['msg']}") from error
    entries = (Subtask(each.name.strip(), each.description.strip(), each.optional, each.repeatable) for each in validated.subtasks)
    return SubtaskList(tuple(entries), validated.covers)


def _from_lines(text: str) -> SubtaskList:
    if text.lstrip()[:1] in ("[", "{"):
        raise DataError("this looks like JSON; name the file .json")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pairs = [re.split(r":(?:\s+|$)", line, maxsplit=1) for line in lines]
    return SubtaskList(tuple(Subtask(part[0].strip(), part[1].strip() if len(part) > 1 else "") for part in pairs))


WHOLE = SubtaskList((Subtask("task"),))
"""The list of a head for which nobody gave stages."""
