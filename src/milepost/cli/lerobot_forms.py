"""Puts LeRobot's command lines into milepost's words, option by option: `--dataset.repo_id=X --policy.type=sarm` and the like.

Only options that LeRobot has and milepost calls by another name are touched; all others stay as they are. What has no counterpart, or is
misspelt, is a `LeRobotOptionError` that says what to type. `lerobot_options.py` has the options, docs/lerobot.md the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from milepost import models
from milepost.cli.lerobot_options import (
    DATASET,
    INSTEAD,
    NOT_NEEDED,
    OF_PLUGIN,
    POLICIES,
    PREFIXES,
    REFUSED,
    RENAMED,
    REWARD_MODELS,
    SWITCHES,
    TRAINING,
    as_lerobot_writes,
    options_of,
)

TRUE, FALSE = ("", "true", "1", "yes"), ("false", "0", "no", "none", "null")
"""How a switch is written."""


class LeRobotOptionError(ValueError):
    """An option of LeRobot's that cannot be put into milepost's words.

    verb, arguments: the command line without what is wrong with it, still in the user's words; no arguments if there is none.
    """

    def __init__(self, text: str, verb: str, arguments: list[str] | None) -> None:
        super().__init__(text)
        self.verb, self.arguments = verb, arguments


class _RefusedError(ValueError):
    """instead: the words to type in place of this option, () for none, None where another option would not help. verb: another verb."""

    def __init__(self, text: str, instead: tuple[str, ...] | None = (), verb: str = "") -> None:
        super().__init__(text)
        self.instead, self.verb = instead, verb


def in_our_words(verb: str, arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Returns verb, arguments and remarks. LeRobotOptionError for an option of LeRobot's that has no counterpart, or a misspelt one.

    >>> in_our_words("train", ["--dataset.repo_id=me/towels", "--policy.type=sarm", "--policy.annotation_mode", "dual", "--steps=9"])[1]
    ['me/towels', '--annotation-mode', 'dual', '--steps=9']
    """
    words, place = _Words(verb), 0
    while place < len(arguments):
        flag, value, behind = _option(arguments, place)
        try:
            is_theirs = bool(flag) and words.takes(flag, value, arguments[place].partition("=")[0])
        except _RefusedError as error:
            raise _with_rest(error, verb, arguments, place, behind) from None
        if is_theirs:
            place = behind
        else:
            words.keep(arguments[place])
            place += 1
    return words.result() if words.is_changed else (verb, list(arguments), [])


def _with_rest(error: _RefusedError, verb: str, arguments: Sequence[str], place: int, behind: int) -> LeRobotOptionError:
    """Returns the error with the command line in which the option is replaced. For another verb only the dataset stays."""
    if error.instead is None:
        return LeRobotOptionError(str(error), verb, None)
    if error.verb:
        options = [_option(arguments, each)[:2] for each in range(len(arguments))]
        datasets = [word for flag, value in options if flag in DATASET for word in (flag, value)]
        return LeRobotOptionError(str(error), error.verb, [*datasets, *error.instead])
    return LeRobotOptionError(str(error), verb, [*arguments[:place], *error.instead, *arguments[behind:]])


def _option(arguments: Sequence[str], place: int) -> tuple[str, str, int]:
    """Returns the option at this place in dashes, "" if it is none; its value; and the place behind it."""
    flag, mark, value = arguments[place].partition("=")
    if not flag.startswith("--"):
        return "", "", place + 1
    if flag.replace("_", "-") in SWITCHES:
        return flag.replace("_", "-"), value, place + 1
    behind = arguments[place + 1] if place + 1 < len(arguments) else ""
    has_value = not mark and behind and not behind.startswith("--")
    return flag.replace("_", "-"), behind if has_value else value, place + (2 if has_value else 1)


class _Words:
    """A command line while it is put into milepost's words."""

    def __init__(self, verb: str) -> None:
        self.is_changed = False
        self._verb, self._rest = verb, list[str]()
        self._datasets: dict[int, str] = {}
        self._repository: str | None = None
        self._uploads, self._asks_upload = True, False
        self._remarks: list[str] = []

    def keep(self, word: str) -> None:
        """Adds a word of the user's as it is."""
        self._rest.append(word)

    def takes(self, flag: str, value: str, typed: str) -> bool:
        """Returns whether this is an option of LeRobot's, whose counterpart is then added. typed: the option as it stands there."""
        is_theirs = self._take(flag, value, typed)
        self.is_changed |= is_theirs
        return is_theirs

    def result(self) -> tuple[str, list[str], list[str]]:
        """Returns verb, arguments and remarks. LeRobotOptionError if a dataset is named as the first word too."""
        words = [self._datasets[max(self._datasets)]] if self._datasets else []
        if words and self._rest and not self._rest[0].startswith("-"):
            option = as_lerobot_writes(DATASET[max(self._datasets)])
            text = f"'{self._rest[0]}' and {option}={words[0]} both name a dataset; give one of them"
            raise LeRobotOptionError(text, self._verb, None)
        if self._repository is not None and self._uploads:
            self._rest += ["--push-to-hub", self._repository]
            who = f"the model is uploaded to {self._repository} at the end, as a repo_id asks LeRobot to"
            self._remarks.append(f"{who}; without it nothing is uploaded")
        if self._repository is None and self._asks_upload:
            text = "push_to_hub=true uploads the model, and no repository is named: add --policy.repo_id=OWNER/NAME, or leave it out"
            raise LeRobotOptionError(text, self._verb, None)
        flags = {word.partition("=")[0].replace("_", "-") for word in self._rest}
        if self._verb == "label" and words and "--output-path" not in flags and not Path(words[0]).expanduser().is_dir():
            name = "topreward_progress.parquet" if "topreward" in self._rest else "sarm_progress.parquet"
            self._rest += ["--output-path", name]
            self._remarks.append(f"a Hub dataset is never written into: progress goes into {name} here")
        return self._verb, [*words, *self._rest], self._remarks

    def _take(self, flag: str, value: str, typed: str) -> bool:
        renamed = RENAMED.get(self._verb, {})
        if flag in DATASET:
            self._datasets[DATASET.index(flag)] = value
        elif flag in renamed:
            self._rest += [renamed[flag], value]
        elif flag == "--visualize-only" and self._verb in ("label", "plot"):
            self._verb = "plot"
        elif self._verb == "train" and flag in TRAINING:
            self._take_training(flag, value, typed)
        elif flag.startswith(PREFIXES) or (self._verb == "train" and flag in REFUSED):
            self._leave_out(flag, value, typed)
        else:
            return False
        return True

    def _leave_out(self, flag: str, value: str, typed: str) -> None:
        """Notes an option that is switched off. Any other raises _RefusedError."""
        if self._verb == "train" and flag in REFUSED and value.lower() in ("false", "none", "null"):
            self._remarks.append(f"{typed} is off, so it is left out")
            return
        near = [] if flag in REFUSED else difflib.get_close_matches(as_lerobot_writes(flag), options_of(self._verb), n=1, cutoff=0.75)
        if near:
            raise _RefusedError(f"there is no option {typed}; did you mean {near[0]}?", (f"{near[0]}={value}" if value else near[0],))
        instead = next((words for part, words in INSTEAD.items() if part in flag.split(".")[1:] or flag == f"--{part}"), "; leave it out")
        raise _RefusedError(f"{typed} has no counterpart in milepost {self._verb}{instead}")

    def _take_training(self, flag: str, value: str, typed: str) -> None:
        """Adds the words for an option of `lerobot-train` that is no mere name."""
        is_true = value.lower() in TRUE
        if flag.endswith((".push-to-hub", ".enable")) and value.lower() not in (*TRUE, *FALSE):
            raise _RefusedError(f"{typed} is true or false, not '{value}'")
        what = flag.rpartition(".")[2]
        if what == "type":
            self._rest += _model(value, typed)
        elif what == "enable" and is_true:
            self._rest += ["--log-to", "wandb"]
        elif what == "push-to-hub":
            self._uploads, self._asks_upload = is_true, is_true
        elif what == "repo-id":
            self._repository = value
        elif what == "episodes":
            self._rest += ["--episodes", value.strip("[]").replace(" ", "")]
        elif flag == "--eval-steps" and value != "0":
            self._rest += ["--eval-every", value]
        elif flag in (*NOT_NEEDED, "--eval-steps"):
            self._remarks.append(f"{typed} is not needed: milepost train decides this itself, and the same command goes on")


def _model(name: str, typed: str) -> list[str]:
    """Returns the words for the model that LeRobot's `type` names. _RefusedError, with the command, for one that is not trained here."""
    own = name.removeprefix(OF_PLUGIN)
    if own == "sarm":
        return []
    if own == "topreward":
        words = ("--model", "topreward")
        raise _RefusedError(
            "topreward is zero-shot, so there is nothing to train: milepost label DATASET --model topreward", words, "label"
        )
    if name in POLICIES:
        raise _RefusedError(
            f"milepost trains reward models, and '{name}' is a policy: LeRobot trains it, by lerobot-train with these same options, and "
            "takes DATASET/sarm_progress.parquet by itself. To see its weights before: milepost weigh DATASET --chunk-size CHUNK_SIZE",
            None,
        )
    if name in REWARD_MODELS:
        raise _RefusedError(f"LeRobot itself trains '{name}', by lerobot-train with these same options; milepost trains sarm", None)
    ours = tuple(models.names())
    if name in ours:
        return ["--model", name]
    near = difflib.get_close_matches(name, ("sarm", *ours, *REWARD_MODELS, *POLICIES, f"{OF_PLUGIN}sarm"), n=1)
    if near:
        raise _RefusedError(f"there is no model '{name}'; did you mean {near[0]}?", (f"{typed}={near[0]}",))
    raise _RefusedError(
        f"'{name}' is no model that milepost trains, which are sarm, success and value; if it is a policy, lerobot-train takes these same "
        "options",
        None,
    )
