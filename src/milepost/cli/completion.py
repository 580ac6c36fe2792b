"""`milepost completion bash`: prints what a shell needs to complete verbs and options. The parser's library writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Annotated, Any, Union

import tyro

SHELLS = ("bash", "zsh", "tcsh")
USAGE = f"usage: milepost completion {'|'.join(SHELLS)}     (source <(milepost completion bash) completes in this shell)"


def main(arguments: Sequence[str], verbs: Iterable[str], command_of: Callable[[str], ModuleType]) -> int:
    """Prints the script of a shell. Returns 2 for a shell that the parser does not know. command_of: verb -> its file."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        print(USAGE)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    kinds = [Annotated[command_of(verb).Args, tyro.conf.subcommand(verb)] for verb in verbs]
    of_all: Any = Union[tuple(kinds)]  # noqa: UP007 - their number is not known here
    try:
        tyro.cli(of_all, prog="milepost", args=["--tyro-print-completion", arguments[0]])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
