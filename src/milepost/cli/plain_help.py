"""The help and the errors of the option parser in plain words: no Python types, no default that is said twice, no names of our classes.

The parser (tyro) writes boxes. They are read back here, and written as headings, options and sentences. What is not understood is passed on
as it is.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

HEADINGS = {
    "positional arguments": "what it works on",
    "model-options.sarm options": "options of a SARM model",
    "model-options.vlm options": "options of the models that ask a VLM",
    "model-options.prefixes options": "options of the models that ask after each part of an episode",
    "model-options.gvl options": "options of GVL",
    "model-options.topreward options": "options of TOPReward",
    "model-options.roboreward options": "options of RoboReward",
    "model-options.robometer options": "options of Robometer",
    "training-options.success options": "options of a success head",
    "training-options.value options": "options of a value model",
    "training-options.tuning options": "options of fine-tuning",
    "rabc options": "how progress becomes weights",
    "stages options": "the stages",
    "asking options": "how the model is asked",
    "model options": "which model is asked",
}
"""Heading of the parser -> ours. Another group of options is a model's of another package."""
KINDS = {"INT": "N", "FLOAT": "NUMBER", "STR": "TEXT"}
"""What the parser calls a type -> what the help calls it."""
WORDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "text", "PATH": "a path"}
"""What the parser calls a type -> what an error calls it."""
WORDS_OF = {"2": "two", "3": "three"}
SWITCH = {"False": "no", "True": "yes"}
INDENT = 28
"""Where the text beside an option begins."""


@dataclass
class Box:
    """A box of the parser. about: the sentences before its line. entries: the words of each option, and its text."""

    heading: str
    about: list[str] = field(default_factory=list)
    entries: list[tuple[str, list[str]]] = field(default_factory=list)
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


def plain_help(text: str) -> str:
    """Returns the parser's help in plain words."""
    return "\n".join(line for part in boxes(text) for line in ([part] if isinstance(part, str) else _section(part))) + "\n"


def _section(box: Box) -> list[str]:
    width = min(110, max(60, shutil.get_terminal_size().columns))
    heading = HEADINGS.get(box.heading, box.heading)
    name = re.fullmatch(r"(?:(?:model|training)-options\.)?(\w+) options", heading)
    lines = [f"{f'options of the model {name[1]}' if name else heading}:"]
    lines += textwrap.wrap(" ".join(box.about), width, initial_indent="  ", subsequent_indent="  ")
    for words, text in box.entries:
        option = f"  {_option(words)}"
        about = textwrap.wrap(_about(" ".join(text)), width - INDENT) or [""]
        first = f"{option:<{INDENT}}{about[0]}" if len(option) < INDENT - 1 else option
        rest = about[1:] if len(option) < INDENT - 1 else about
        lines += [first.rstrip(), *(f"{'':{INDENT}}{line}" for line in rest if line)]
    return [*lines, ""]


def _option(words: str) -> str:
    """Returns the words of an option without the value None, which is written by leaving the option out.

    >>> _option("--price-per-million {None}|{FLOAT FLOAT}"), _option("--protocol {None,milepost,lerobot}")
    ('--price-per-million NUMBER NUMBER', '--protocol {milepost,lerobot}')
    """
    words = re.sub(r"\{None\}\|\{?([^{}|]*)\}?", r"\1", words).replace("{None,", "{")
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
    if value in ("None", "") or re.search(r"\bdefault\b", words, re.IGNORECASE):
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
    return [line for line in lines if "For full helptext" not in line and not re.fullmatch(r" *milepost \w+ --help", line)]


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
