"""The package's own files as syntax trees, each parsed and walked once for all tests of a file."""

import ast
from functools import cache
from pathlib import Path


@cache
def parsed(path: Path) -> ast.Module:
    """Returns the syntax tree of a file."""
    return ast.parse(path.read_text())


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Returns every node of a file's tree, outer ones first."""
    return tuple(ast.walk(parsed(path)))
