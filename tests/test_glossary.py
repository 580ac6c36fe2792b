"""Names and docstrings keep to ARCHITECTURE's glossary. What does not yet is counted for each room: a count may fall, never rise."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from syntax_trees import parsed

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "milepost"
PARTICIPLES = "said told held kept found given made asked shown drawn named seen wanted chosen lost heard gone meant known taken"
"""A variable says what its value is, not what was done to it."""
VERB = re.compile(r"[A-Z][a-z]+s\b")
"""How a function's docstring begins: Returns, Reads, Writes ..."""
NOT_VERBS = "As This Its Numbers Names Frames Rows Values Weights Episodes Stages Images Videos Others Has Is Does"
"""Words in -s that may begin a sentence without a verb."""
ALLOWED: dict[str, tuple[int, int, int]] = {
    "annotation": (5, 6, 0),
    "cli": (0, 3, 0),
    "core": (2, 2, 1),
    "datasets": (4, 24, 0),
    "metrics": (0, 3, 0),
    "models": (8, 4, 0),
    "progress": (1, 1, 0),
    "sim": (0, 2, 0),
    "testing": (0, 3, 0),
    "viewer": (0, 1, 0),
    "vlm": (1, 2, 0),
    "weights": (0, 2, 0),
}
"""Room -> names that are participles, names with a word the glossary forbids, function docstrings without a verb in front."""


def forbidden_words() -> set[str]:
    """Returns the words in code type in the last column of the glossary's table."""
    table = (ROOT / "ARCHITECTURE.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    rows = [line.strip().strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    return {word for row in rows for word in re.findall(r"`(\w+)`", row[-1])}


def names(tree: ast.AST) -> Iterator[str]:
    """Yields every name that is defined: variables, arguments, attributes, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name


def words(name: str) -> set[str]:
    """Returns the words of a snake_case or CamelCase name, in lower case and without a plural s."""
    return {re.sub(r"(?<=[^s])s$", "", word) for word in re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")}


def starts_with_verb(text: str) -> bool:
    first = VERB.match(text)
    return first is not None and first[0] not in NOT_VERBS.split()


def count(room: str) -> tuple[int, int, int]:
    files = SOURCE.glob("*.py") if room == "milepost" else (SOURCE / room).rglob("*.py")
    forbidden, counts = {re.sub(r"(?<=[^s])s$", "", word) for word in forbidden_words()}, Counter[int]()
    for tree in map(parsed, files):
        for name in names(tree):
            counts[0] += name.strip("_") in PARTICIPLES.split()
            counts[1] += bool(words(name) & forbidden)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                counts[2] += not starts_with_verb(text)
    return counts[0], counts[1], counts[2]


@pytest.mark.parametrize("room", sorted({"milepost", *(path.parent.name for path in SOURCE.glob("*/__init__.py"))}))
def test_names_and_docstrings_keep_to_the_glossary(room: str) -> None:
    assert all(now <= allowed for now, allowed in zip(count(room), ALLOWED.get(room, (0, 0, 0)), strict=True)), (room, count(room))


def test_the_counting_itself() -> None:
    tree = ast.parse("def lost(self, film_paths): self._held = border = 1\nclass PictureFrames: kept: int")
    assert [name.strip("_") in PARTICIPLES.split() for name in names(tree)].count(True) == 3
    assert [words(name) & {"film", "border", "picture"} for name in names(tree)].count(set()) == 4
    assert [starts_with_verb(text) for text in ("Returns it.", "Rows of it.", "What it is.")] == [True, False, False]
