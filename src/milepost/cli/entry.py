"""`milepost VERB`: imports the verb's file, parses its arguments, runs its main. A heavy package is imported only by the verbs that need
it.

Exit codes: 0 done; 1 done, but something is wrong with the data; 2 refused, nothing written; 130 interrupted, 143 asked to end (SIGTERM):
the same command resumes.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from milepost.cli.effects import require_paths_here
from milepost.cli.lerobot_forms import LeRobotOptionError, in_our_words
from milepost.cli.lerobot_options import options_of
from milepost.cli.next_step import journey

VERBS = {
    "demo": "all steps on simulated demonstrations: simulate, train, label, weigh, report",
    "info": "what is in a dataset, and what is wrong with it",
    "import": "turn videos, HDF5 or Zarr recordings into a LeRobot dataset",
    "simulate": "make a LeRobot dataset of simulated demonstrations whose true progress is known",
    "annotate": "divide episodes into named stages with a vision-language model, check and correct them",
    "train": "train a reward model on a dataset",
    "label": "write a model's progress for every frame of a dataset",
    "weigh": "compute RA-BC sample weights from progress, and report their effect",
    "advantage": "make advantage labels from progress, and report which frames become positive",
    "evaluate": "compare a progress file with the truth or the annotations, beside a clock",
    "audit": "tell whether a model's progress follows what is seen or the time, on edited copies of your episodes",
    "compare": "train policies with and without weights on simulated demonstrations, and count their successes",
    "plot": "draw progress curves over the stages, with sample frames",
    "view": "look at episodes in the browser: curves beside videos, stages corrected, episodes marked",
    "serve": "say progress while robots move: a server for one robot or many",
    "render": "make videos of episodes with the progress curve drawn in",
    "copy": "copy a dataset with progress and weight as columns, which LeRobot and the Hub's viewer read",
}

PROGRAMS = {"compute_rabc_weights": "label", "subtask_annotation": "annotate", "lerobot_train": "train", "create_progress_videos": "render"}
"""LeRobot's program -> the verb that takes its options."""
RESUMED = {"demo", "simulate", "annotate", "train", "label", "audit", "compare"}
"""Verbs that continue an interrupted run."""

_FILES = {"import": "import_"}
"""Verb -> its file in cli/, where the file cannot be called like the verb because that is a word of Python."""
EXTRAS = {"'milepost[sim]'": ("gymnasium", "metaworld", "mujoco"), "'milepost[vlm]'": ("transformers",)}
"""What pip installs -> the packages that come with it. Any other package is installed by its own name."""
_SETTING = re.compile(r"(?<!['\"\w./-])([a-z]+(?:_[a-z]+)+)(=?)(?!['\"\w/-]|\.\w|=)|(?<!['\"\w./-])([a-z]+(?:_[a-z]+)+)=(?=['\"])")
"""A setting's name in Python, which has two words or more."""
USUAL_NAMES = {
    "--camera": ("--image-key", "--camera-key"),
    "--force": ("--overwrite",),
    "--gpu": ("--device",),
    "--instruction": ("--task",),
    "--learning-rate": ("--lr",),
    "--num-epochs": ("--epochs",),
    "--num-steps": ("--steps",),
    "--out": ("--output-path", "--output-dir"),
    "--output": ("--output-path", "--output-dir"),
}
"""What an option is called elsewhere -> what it may be called here. The spelling of such a name is near to none of ours."""
LONGEST = 1200
"""Most letters of an error."""
USAGE = "usage: milepost VERB [OPTIONS]     (milepost VERB --help for the options)"


def help_text() -> str:
    """Returns the front page of the command line: what to type next, here if the current folder is a dataset, and all verbs."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return f"milepost: how far along is the task, for every frame of a robot demonstration\n\n{USAGE}\n\n{journey(Path())}\n\n{verbs}\n"


def main(argv: list[str] | None = None, program: str = "") -> int:
    """Runs one verb; returns the exit code. Without `argv` the process is a user's, and warnings of other packages are hidden.

    program: what the user typed in place of `milepost VERB`, for the help.
    """
    if argv is None:
        quiet_others()
    try:
        try:
            return start(sys.argv[1:] if argv is None else argv, program)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # else a closed pipe, or a full disk, is noticed only as the interpreter ends, with a traceback
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        _drop_output()
        complain(f"milepost: {explain(error)}")
        return 2


def start(argv: list[str], program: str = "") -> int:
    """Shows the front page or the version, or runs the verb."""
    # torch's threads otherwise spin while they wait: ten times slower as soon as another process wants the cores (docs/LOG.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if argv[0] in ("-V", "--version", "version"):
        print(f"milepost {importlib.import_module('milepost').__version__}")
        return 0
    if argv[0] == "completion":
        return importlib.import_module("milepost.cli.completion").main(argv[1:], VERBS, command_of)
    if argv[0] not in VERBS:
        theirs = PROGRAMS.get(Path(argv[0]).stem.replace("-", "_"))
        hint = (
            guess(argv[0], VERBS)
            if theirs is None
            else f"; LeRobot's program of this name is milepost {theirs} here, with the same options"
        )
        print(f"milepost: no verb '{argv[0]}'{hint}\n\n{help_text()}", file=sys.stderr)
        return 2
    return run(argv[0], argv[1:], program)


OTHERS = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Settings that reduce the messages of packages that do not use Python's `warnings` to errors."""


def quiet_others() -> None:
    """Hides the warnings of other packages, because a user cannot act on them; each of our own is shown on one line.

    MILEPOST_DEBUG, or `python -W`, shows them all.
    """
    if os.environ.get("MILEPOST_DEBUG") or sys.warnoptions:
        return
    for name, level in OTHERS.items():
        os.environ.setdefault(name, level)
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"milepost(\.|$)")
    warnings.formatwarning = lambda message, *_, **__: f"milepost: {message}\n"


def _drop_output() -> None:
    """Discards the remaining output, because its reader is gone."""
    with contextlib.suppress(OSError):  # a test's stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(verb: str, arguments: list[str], program: str = "") -> int:
    """Imports the verb, parses its arguments, runs it, and turns an error that the user can fix into one line."""
    try:
        try:
            verb, words, remarks = in_our_words(verb, arguments)
        except LeRobotOptionError as error:
            raise ValueError(_with_command(error)) from None
        parse, own_words = _parser(verb, words)
        args = _parsed(parse, verb, own_words, program)
        require_paths_here(args)
        if words != arguments:
            complain(f"milepost {verb}: LeRobot's options; in milepost's words: milepost {verb} {shlex.join(words)}")
        for remark in remarks:
            complain(f"milepost {verb}: {remark}")
        command = command_of(verb)
        with Ending():
            return int(command.main(args) or 0)
    except KeyboardInterrupt as stop:
        then = "the same command goes on from here" if verb in RESUMED else "what was finished is whole, nothing is half-written"
        print(f"\nmilepost {verb}: interrupted; {then}", file=sys.stderr)
        return 143 if isinstance(stop, TerminatedError) else 130
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get("MILEPOST_DEBUG"):
            raise
        complain(f"milepost {verb}: {_with_flags(explain(error), verb)}")
        return 2


def command_of(verb: str) -> ModuleType:
    """Returns the file of a verb, imported: its `Args` and its `main`.

    >>> command_of("import").__name__
    'milepost.cli.import_'
    """
    return importlib.import_module(f"milepost.cli.{_FILES.get(verb, verb)}")


def _with_flags(text: str, verb: str) -> str:
    """Returns an error in which settings are called as the verb's options are.

    Where a setting is checked, it has its name in Python, such as failure_frames for --failure-frames. A name of one word is replaced only
    where the error begins with it: fps is also a word. What stands in quotes or in a path is nobody's setting, and a
    name with a bare value, such as push_to_hub=true, is what somebody typed.
    """
    start = re.match(r"[a-z][a-z_]*(?:(?:, | and )[a-z][a-z_]*)*(?= (?:must|should|need) )", text)
    if start is None and not _SETTING.search(text):
        return text
    options = set(re.findall(r"--[a-z][a-z.-]+", _options_text(_parser(verb, [])[0])))

    def flag(name: str, otherwise: str) -> str:
        dashed = f"--{name.replace('_', '-')}"
        return dashed if dashed in options else otherwise

    def as_option(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        dashed = flag(name, name)
        return match[0] if dashed == name else dashed + (" " if match[3] else "")

    rest = text if start is None else text[start.end() :]
    names = "" if start is None else re.sub(r"[a-z_]+", lambda name: flag(name[0], name[0]), start[0])
    return names + _SETTING.sub(as_option, rest)


def _parser(verb: str, arguments: list[str]) -> tuple[Callable[..., Any], list[str]]:
    """Returns the parser of a verb's arguments, and the arguments as it takes them."""
    command, tyro = command_of(verb), importlib.import_module("tyro")
    kind = command.Args
    if "model_options" in kind.__dataclass_fields__:
        kind = importlib.import_module("milepost.models.options").with_model(kind, arguments)
    if verb == "train":  # else parsing says only that the name is no choice, and not why
        importlib.import_module("milepost.models.options").require_trainable_among(arguments)
    if hasattr(command, "rewritten"):
        arguments = command.rewritten(arguments)
    plain = importlib.import_module("milepost.cli.plain_help")
    parse = plain.at_its_width(partial(tyro.cli, kind, prog=f"milepost {verb}", description=command.__doc__))
    return parse, joined_numbers(arguments)


def _with_command(error: LeRobotOptionError) -> str:
    """Returns what is wrong with LeRobot's options, all of them, and the command to type, if there is one that the verb takes."""
    faults = [str(error)]
    while error.arguments is not None:
        try:
            verb, words, _ = in_our_words(error.verb, error.arguments)
        except LeRobotOptionError as more:
            faults.append(str(more))
            error = more
        else:
            faults += _command(verb, words) or _what_was_meant(words, verb, _parser(verb, words)[0]).splitlines()
            break
    return " ".join(fault if fault.endswith("?") or fault == faults[-1] else f"{fault}." for fault in faults)


def _command(verb: str, words: list[str]) -> list[str]:
    """Returns the command to type in milepost's words; empty if the verb does not take it."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            parse, own_words = _parser(verb, words)
            parse(args=own_words)
        except (SystemExit, ValueError):
            return []
    return [f"type: milepost {verb} {shlex.join(words)}"]


def _parsed(parse: Callable[..., Any], verb: str, arguments: list[str], program: str = "") -> Any:
    """Returns the verb's arguments. Help and errors are printed in plain words; then SystemExit ends the process, as the parser wants."""
    plain = importlib.import_module("milepost.cli.plain_help")
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            return parse(args=arguments)
    except SystemExit as leaving:
        if text := _written(out):
            print(plain.plain_help(text, verb).replace(f"usage: milepost {verb}", f"usage: {program or f'milepost {verb}'}", 1), end="")
        near = ""
        if leaving.code == 2:  # the parser itself guesses only where no required option is missing
            near = _what_was_meant(arguments, verb, parse)
        for line in plain.plain_error(verb, _written(errors), near, program).splitlines():
            who = f"milepost {verb}: " if line.startswith(f"milepost {verb}: ") else ""
            complain(f"{who}{_with_flags(line.removeprefix(who), verb)}")
        raise


def _what_was_meant(arguments: list[str], verb: str, parse: Callable[..., object]) -> str:
    """Returns a line for each misspelt option, and one with the command to type, if the verb takes it."""
    ours = set(re.findall(r"--[a-z][a-z.-]+", _options_text(parse)))
    lines = guesses(arguments, ours, options_of(verb))
    if not lines:
        return ""
    corrections = dict(re.findall(r"no option (\S+); did you mean (\S+)\?", lines))
    corrected = [re.sub(r"^[^=]+", lambda flag: corrections.get(flag[0].replace("_", "-"), flag[0]), word) for word in arguments]
    with contextlib.suppress(LeRobotOptionError):
        new_verb, words, _ = in_our_words(verb, corrected)
        return lines + "".join(f"{line}\n" for line in _command(new_verb, words))
    return lines


def _written(stream: io.TextIOWrapper) -> str:
    """Returns what was written into a stream in memory."""
    stream.seek(0)
    return stream.read()


def guess(word: str, choices: Iterable[str]) -> str:
    """Returns "; did you mean ...?" if a word is similar to a known one, else ""."""
    near = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _options_text(parse: Callable[..., object]) -> str:
    """Returns what --help prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        parse(args=["--help"])
    return out.getvalue()


def guesses(arguments: list[str], options: set[str], theirs: Iterable[str] = ()) -> str:
    """Returns a line for each unknown option that is similar to a known one. theirs: LeRobot's options, as LeRobot writes them.

    >>> guesses(["towels", "--outputdir", "out"], {"--output-dir", "--seed"})
    'no option --outputdir; did you mean --output-dir?\\n'
    >>> guesses(["towels", "--learning-rate=1e-4"], {"--lr", "--seed"}, ["--eval.recording_private"])
    'no option --learning-rate; did you mean --lr?\\n'
    >>> guesses(["--datset.repo_id=towels"], {"--output-dir", "--seed"}, ["--dataset.repo_id"])
    'no option --datset.repo-id; did you mean --dataset.repo_id?\\n'
    """
    others = {each.replace("_", "-"): each for each in theirs}
    words = dict.fromkeys(word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--"))
    lines = []
    for word in words:
        spellings = {**others, **{each: each for each in options}}
        if usual := next((each for each in USUAL_NAMES.get(word, ()) if each in options), None):
            near = [usual]
        else:
            near = difflib.get_close_matches(word, sorted(spellings), n=1)
            near = [each for each in near if "." in word or "." not in each]  # a plain word is no misspelling of an option with a dot
        if word not in options and near:
            lines.append(f"no option {word}; did you mean {spellings[near[0]]}?\n")
    return "".join(lines)


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM (timeout, Slurm, docker stop): as by Ctrl-C, it clears up first."""


class Ending:
    """Turns SIGTERM into `TerminatedError` while a verb runs, so that temporary files and worker processes do not outlive it.

    Some packages catch the exception of a signal and raise their own in its place; what was interrupted ends as interrupted all the same.
    """

    def __init__(self) -> None:
        self._stop: KeyboardInterrupt | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._end)}
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody ignores it, as nohup does
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._end)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._stop is not None and error is not None and not isinstance(error, KeyboardInterrupt):
            raise self._stop from error

    def _end(self, number: int, frame: object) -> NoReturn:
        self._stop = TerminatedError() if number == signal.SIGTERM else KeyboardInterrupt()
        raise self._stop


def complain(text: str) -> None:
    """Prints an error on standard error. Names in it are foreign text, so it cannot send commands to the terminal, and its length is
    limited."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    print(importlib.import_module("milepost.cli.console").plain(text), file=sys.stderr)


def joined_numbers(arguments: list[str]) -> list[str]:
    """Joins the numbers behind --episodes into one word: LeRobot's `--episodes 0 1 2` becomes `--episodes 0,1,2`.

    >>> joined_numbers(["towels", "--episodes", "0", "1", "5-9", "--stride", "2"])
    ['towels', '--episodes', '0,1,5-9', '--stride', '2']
    """
    out: list[str] = []
    behind = False
    for word in arguments:
        numbers = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*,?", word)
        if behind and numbers and re.fullmatch(r"[\d,-]+", out[-1]):
            out[-1] = f"{out[-1].rstrip(',')},{word}"
            continue
        out.append(word)
        behind = word == "--episodes" or (behind and numbers is not None)
    return out


def explain(error: Exception) -> str:
    """Returns one line for the user: what happened and what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no space left to write {error.filename or 'the output'}; free some and run the same command again, nothing is half-written"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        name = error.filename
        if name is not None and Path(name).is_file() and not os.access(name, os.R_OK):
            return f"{name} may not be read: you have no permission; change it with chmod or chown, or use a copy"
        return f"cannot write {name or 'the output'}: read-only or not permitted; choose another place for the output"
    if isinstance(error, ModuleNotFoundError) and not error.name:
        return f"a package that this verb uses {importlib.import_module('milepost.core').import_fault(error)}"
    if isinstance(error, ModuleNotFoundError):
        install = f"pip install {next((each for each, names in EXTRAS.items() if error.name in names), error.name)}"
        return f"this verb needs the package '{error.name}', which is not installed: {install}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
