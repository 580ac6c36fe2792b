"""The help and the errors of the option parser in plain words: no Python types, no default that is said twice, no names of our classes.

The parser (tyro) writes boxes. They are read back here, and written as headings, options and sentences.
`verb_help.py` says what comes first. What is not understood is passed on as it is.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from milepost.cli.verb_help import HELP, MEANINGS, TITLES, VerbHelp

HEADINGS = {
    "positional arguments": "what it works on",
    "model-options.sarm options": "options of a SARM model",
    "model-options.vlm options": "options of the models that ask a VLM",
    "model-options.prefixes options": "options of the models that ask after each part of an episode",
    "model-options.gvl options": "options of GVL",
    "model-options.topreward options": "options of TOPReward",
    "model-options.roboreward options": "options of RoboReward",
    "model-options.robometer options": "options of Robometer",
    "model-options.value options": "options of a value model",
    "training-options.success options": "options of a success head",
    "training-options.value options": "options of a value model",
    "training-options.tuning options": "options of fine-tuning",
    "rabc options": "how progress becomes weights",
    "stages options": "the stages",
    "asking options": "how the model is asked",
    "model options": "which model is asked",
    "choices options": "what the source does not say itself",
    "ray-options options": "on a Ray cluster",
}
"""Heading of the parser -> ours. Another group of options is a model's of another package."""
MAIN, REST = "the options used most", "what else there is"
KINDS = {"INT": "N", "FLOAT": "NUMBER", "STR": "TEXT"}
"""What the parser calls a type -> what the help calls it."""
WORDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "text", "PATH": "a path"}
"""What the parser calls a type -> what an error calls it."""
WORDS_OF = {"2": "two", "3": "three"}
SWITCH = {"False": "no", "True": "yes"}
FLAG = re.compile(r"(?<!\S)--?[a-z][\w.-]*")
"""An option's name, among the words of the parser."""
INDENT = 28
"""Where the text beside an option begins."""

PARSER_WIDTH = "128"
"""The parser writes its boxes at this width: in a wider terminal it would put them side by side."""
Entry: TypeAlias = "tuple[str, list[str]]"
"""The words of an option, and its text."""


@dataclass
class Box:
    """A box of the parser. about: the sentences before its line. entries: the words of each option, and its text."""

    heading: str
    about: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Adds a line: the sentences, an option, or more of an option's text."""
        self.lines.append(line)
        if line and not line.strip("─ "):
            self.about, self.entries = [words for words, _ in self.entries], []
        elif line.startswith(" ") and self.entries:
            self.entries[-1][1].append(line.strip())
        else:
            words, _, text = line.partition("  ")
            self.entries.append((words, [text.strip()] if text.strip() else []))


def at_its_width(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the parser, which takes the terminal as `PARSER_WIDTH` wide while it parses."""

    def parsed(**options: Any) -> Any:
        before = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = PARSER_WIDTH
        try:
            return parse(**options)
        finally:
            os.environ.pop("COLUMNS")
            os.environ.update({} if before is None else {"COLUMNS": before})

    return parsed


def boxes(text: str) -> Iterator[str | Box]:
    """Yields the lines of the parser's output that are outside boxes, and the boxes."""
    box: Box | None = None
    for line in text.splitlines():
        if line.startswith("╭"):
            box = Box(line.strip("╭╮─ "))
        elif line.startswith("╰") and box is not None:
            yield box
            box = None
        elif line.startswith("│") and box is not None:
            box.add(line[2:].rstrip().removesuffix("│").rstrip())
        else:
            yield line


def plain_help(text: str, verb: str) -> str:
    """Returns the parser's help of a verb in plain words, the most useful first: what the verb does, the usage, the main options, examples;
    then all other options in groups."""
    parts, own = list(boxes(text.replace("show this help message and exit", "Show this help."))), HELP[verb]
    opening, usage, *more = _paragraphs([part for part in parts if isinstance(part, str)])
    main, *others = _in_order([part for part in parts if isinstance(part, Box)], own)
    width = min(110, max(60, shutil.get_terminal_size().columns))
    lines = [*textwrap.wrap(opening, width), "", *textwrap.wrap(usage, width, subsequent_indent="  "), ""]
    lines += [*_section(main, width), "examples:"]
    for words, reason in own.examples.items():
        lines += _example(f"milepost {verb} {words}".strip(), reason, width)
    for paragraph in [*more, own.exit_codes]:
        lines += ["", *textwrap.wrap(paragraph, width, break_on_hyphens=False)]
    return "\n".join([*lines, "", *(line for box in others for line in _section(box, width))]) + "\n"


def _example(command: str, reason: str, width: int) -> list[str]:
    """Returns the lines of an example; one that is too long goes on in the next line, as a shell takes it."""
    *starts, end = textwrap.wrap(f"  {command}", width - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [*(f"{line} \\" for line in starts), end, *textwrap.wrap(reason, width, initial_indent=" " * 6, subsequent_indent=" " * 6)]


def _paragraphs(lines: list[str]) -> list[str]:
    """Returns the sentence that opens the help, the usage, and the other paragraphs."""
    usage, opening, *more = [paragraph.strip() for paragraph in "\n".join(lines).split("\n\n") if paragraph.strip()]
    return [opening, usage, *more]


def _in_order(parsed: list[Box], own: VerbHelp) -> list[Box]:
    """Returns the main options, what the verb works on, and all other options under our titles. Each option is in one of them."""
    loose = [entry for box in parsed if box.heading == "options" for entry in box.entries]
    every = [entry for box in parsed for entry in box.entries]
    ordered = [Box(MAIN, entries=_of(own.main, every)), *(box for box in parsed if box.heading == "positional arguments")]
    ordered += [Box(title, entries=_of(names.split(), loose)) for title, names in {**own.titles, **TITLES}.items()]
    ordered += [Box(REST, entries=loose), *(box for box in parsed if box.heading not in ("positional arguments", "options"))]
    once, placed = list[Box](), list[Entry]()
    for box in ordered:
        once.append(replace(box, heading=_title(box.heading), entries=[entry for entry in box.entries if entry not in placed]))
        placed += box.entries
    return [box for box in once if box.entries]


def _of(names: Sequence[str], entries: list[Entry]) -> list[Entry]:
    """Returns the entries of these options, in the order of the names."""
    return [entry for name in names for entry in entries if name in FLAG.findall(entry[0])]


def _title(heading: str) -> str:
    """Returns our title of a group; that of another package's model has its name."""
    if heading in HEADINGS or not (name := re.fullmatch(r"(?:[\w-]+\.)?([\w-]+) options", heading)):
        return HEADINGS.get(heading, heading)
    return f"options of the model {name[1]}"


def _section(box: Box, width: int) -> list[str]:
    """Returns the lines of a group of options, and an empty one."""
    about = textwrap.wrap(" ".join(box.about), width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    lines = [f"{box.heading}:", *about]
    for words, text in box.entries:
        option = textwrap.wrap(_option(words), width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        about = textwrap.wrap(_meaning(words, _about(" ".join(text))), width - INDENT, break_on_hyphens=False)
        if len(option[-1]) < INDENT - 1 and about:
            option[-1] = f"{option[-1]:<{INDENT}}{about.pop(0)}"
        lines += [*option, *(f"{'':{INDENT}}{line}" for line in about)]
    return [*lines, ""]


def _meaning(words: str, about: str) -> str:
    """Returns an option's text; if the verb says nothing but a default, what the option means everywhere stands before it."""
    usual = next((MEANINGS[name] for name in FLAG.findall(words) if name in MEANINGS), "")
    return f"{usual} {about}".strip() if not about or about.startswith("(") else about


def _option(words: str) -> str:
    """Returns the words of an option, its own name before other names. The value None is left out, as the option is for it.

    >>> _option("--price-per-million {None}|{FLOAT FLOAT}"), _option("--protocol {None,milepost,lerobot}")
    ('--price-per-million NUMBER NUMBER', '--protocol {milepost,lerobot}')
    >>> _option("--drop {None}|{[{keep,drop} [{keep,drop} ...]]}")
    '--drop [{keep,drop} ...]'
    """
    words = re.sub(r"\[(\S+) \[\1 \.\.\.\]\]", r"[\1 ...]", words)
    words = re.sub(r"\{None\}\|(?:\{((?:[^{}]|\{[^{}]*\})*)\}|([^{}|]*))", r"\1\2", words).replace("{None,", "{")
    words = re.sub(r"^(--[^,]*), (--(?!no-).*)$", r"\2, \1", words)
    return re.sub(r"(?<![\w-])(INT|FLOAT|STR)\b", lambda match: KINDS[match[1]], words)


def _about(text: str) -> str:
    """Returns an option's text with its default said once.

    >>> _about("Frames looked at a second. Default: 2. (default: None)"), _about("Make GIFs. (default: False)")
    ('Frames looked at a second. Default: 2.', 'Make GIFs. (default: no)')
    """
    words, mark, default = text.rpartition("(default: ")
    if not mark or not default.endswith(")"):
        return text
    value = default.removesuffix(")")
    if value in ("None", "", "''") or re.search(r"\bdefault\b", words, re.IGNORECASE):
        return words.strip()
    return f"{words}(default: {SWITCH.get(value, value)})"


def plain_error(verb: str, text: str, guesses: str = "", program: str = "") -> str:
    """Returns the parser's error as a sentence and where the options are. guesses: lines about options that were misspelt, in place of the
    parser's own. program: what was typed in place of `milepost VERB`."""
    lines = [line for part in boxes(text) for line in ([part] if isinstance(part, str) else _sentences(part))]
    sentences = "\n".join(line for line in lines if line.strip()).replace(f"Missing from milepost {verb}:", "these options are needed:")
    if guesses:
        sentences = sentences.partition("\nPerhaps you meant:")[0] + f"\n{guesses.strip()}"
    sentences = re.sub(r"^Unrecognized options: (?!-)(.+)", r"too many words: \1", sentences)
    sentences = re.sub(r"^Unrecognized options: ", "there is no option ", sentences)
    return f"milepost {verb}: {sentences}\n({program or f'milepost {verb}'} --help has every option)\n" if sentences else text


def _sentences(box: Box) -> list[str]:
    end = next((place for place, line in enumerate(box.lines) if line and not line.strip("─ ")), len(box.lines))
    text = " ".join(" ".join(box.lines[:end]).split())
    if choice := re.search(r"invalid choice (.+?) for argument '(.+?)'\. Expected one of \((.*?),?\)\.?$", text):
        return [f"{choice[2]} takes {_either(choice[3])}, got {choice[1]}"]
    if group := re.match(r"Error parsing (?!-)[\w.-]+: (.+)$", text):  # all options of a group together, as their own check says
        return [group[1]]
    if one := re.search(r"Missing value for argument '(\w+)'. Expected 1 values", text):
        return [f"{one[1].upper()} is missing"]
    if few := re.search(r"Missing value for argument '\W*(--[\w.-]+)\W*'. Expected (\d+) values", text):  # tyro 1.0 gives no more
        return [f"{few[1]} takes {WORDS_OF.get(few[2], few[2])} values"]
    if (flag := re.match(r"Error parsing ([\w.-]+)", text)) and (value := re.search(r"\[?('[^']*')\]?", text)):
        return [f"{flag[1]} takes {_expected(flag[1], box.lines[end:])}, got {value[1]}"]
    lines = [_option(re.sub(r" *\((required|default: .*)\)$", "", line)) for line in box.lines if line.strip("─ ")]
    return _refilled([line for line in lines if "For full helptext" not in line and not re.fullmatch(r" *milepost \w+ --help", line)])


def _refilled(lines: list[str]) -> list[str]:
    """Returns the lines with each option's text filled anew: the parser breaks it where our files do, too.

    >>> _refilled(["    --model TEXT", "        Model folder,", "        or a Hub id."])
    ['    --model TEXT', '        Model folder, or a Hub id.']
    """
    filled, deep = list[str](), " " * 8
    for is_text, group in itertools.groupby(lines, lambda line: line.startswith(deep)):
        if is_text:
            words = " ".join(map(str.strip, group))
            filled += textwrap.wrap(words, 110, initial_indent=deep, subsequent_indent=deep, break_on_hyphens=False)
        else:
            filled += group
    return filled


def _either(choices: str) -> str:
    """Returns "a, b or c" for the parser's list of choices."""
    *others, last = [word for each in choices.split(",") if (word := each.strip().strip("'")) != "None"]
    return f"{', '.join(others)} or {last}" if others else last


def _expected(flag: str, lines: list[str]) -> str:
    """Returns what an option takes, from the line of the help that names it."""
    line = next((line for line in lines if flag in line.replace(",", " ").split()), "")
    kinds = re.findall(r"\b(INT|FLOAT|STR|PATH)\b", line)
    if len(kinds) == 2 and kinds[0] == kinds[1] and "[" not in line and "," not in line:
        return f"two values, each {WORDS[kinds[0]]}"
    return WORDS[kinds[0]] if kinds else "another value"
