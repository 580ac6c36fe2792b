"""Puts LeRobot's command lines into milepost's words, option by option: `--dataset.repo_id=X --policy.type=sarm` and the like.

Only options that LeRobot has and milepost calls by another name are touched; all others stay as they are. What has no counterpart is a
ValueError that says what to type. docs/lerobot.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DATASET = ("--dataset-repo-id", "--repo-id", "--dataset.repo-id", "--dataset.root")
"""How LeRobot's programs name the dataset; the last one of this list that is given counts, since a folder comes before an id."""
MODELS = ("--policy.", "--reward-model.")
SAME = ("annotation-mode", "image-key", "state-key", "n-obs-steps", "frame-gap", "device")
"""What a SARM config of LeRobot's calls as `milepost train` does."""
RENAMED: dict[str, dict[str, str]] = {
    "label": {"--num-samples": "--num-prefixes"},
    "plot": {"--num-samples": "--num-prefixes"},
    "annotate": {"--dtype": "--precision"},
    "train": {
        **{f"{group}{name}": f"--{name}" for group in MODELS for name in SAME},
        "--wandb.project": "--project",
        "--job-name": "--run-name",
    },
    "weigh": {
        "--sample-weighting.type": "--rule",
        "--sample-weighting.progress-path": "--progress",
        **{f"--sample-weighting.{name}": f"--{name}" for name in ("head-mode", "kappa", "epsilon")},
    },
}
"""Verb -> LeRobot's option -> ours, each with one value."""
NOT_NEEDED = ("--num-workers", "--log-freq", "--save-freq", "--eval-freq", "--save-checkpoint", "--resume")
"""Options of `lerobot-train` without a counterpart in `milepost train`, which decides these by itself and always goes on."""
TRAINING = (
    *(f"{group}{name}" for group in MODELS for name in ("type", "repo-id", "push-to-hub")),
    "--wandb.enable",
    "--dataset.episodes",
    *NOT_NEEDED,
)
SWITCHES = ("--visualize-only",)
"""Options of LeRobot's programs without a value."""
PREFIXES = ("--policy.", "--reward-model.", "--dataset.", "--wandb.", "--sample-weighting.")


def in_our_words(verb: str, arguments: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Returns verb, arguments and remarks. ValueError for an option of LeRobot's that has no counterpart.

    >>> in_our_words("train", ["--dataset.repo_id=me/towels", "--policy.type=sarm", "--policy.annotation_mode", "dual", "--steps=9"])[1]
    ['me/towels', '--annotation-mode', 'dual', '--steps=9']
    """
    words, place = _Words(verb), 0
    while place < len(arguments):
        flag, value, behind = _option(arguments, place)
        if flag and words.takes(flag, value, arguments[place].partition("=")[0]):
            place = behind
        else:
            words.keep(arguments[place])
            place += 1
    return words.result() if words.is_changed else (verb, list(arguments), [])


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
        self._uploads = True
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
        """Returns verb, arguments and remarks."""
        words = [self._datasets[max(self._datasets)]] if self._datasets else []
        if self._repository is not None and self._uploads:
            self._rest += ["--push-to-hub", self._repository]
            who = f"the model is uploaded to {self._repository} at the end, as a repo_id asks LeRobot to"
            self._remarks.append(f"{who}; without it nothing is uploaded")
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
            self._take_training(flag, value)
        elif flag.startswith(PREFIXES):
            every = f"milepost {self._verb} --help has every option"
            raise ValueError(f"{typed} has no counterpart in milepost {self._verb}; leave it out ({every})")
        else:
            return False
        return True

    def _take_training(self, flag: str, value: str) -> None:
        """Adds the words for an option of `lerobot-train` that is no mere name."""
        is_true = value.lower() in ("", "true", "1", "yes")
        what = flag.rpartition(".")[2]
        if what == "type":
            _require_sarm(value)
        elif what == "enable" and is_true:
            self._rest += ["--log-to", "wandb"]
        elif what == "push-to-hub":
            self._uploads = is_true
        elif what == "repo-id":
            self._repository = value
        elif what == "episodes":
            self._rest += ["--episodes", value.strip("[]").replace(" ", "")]
        elif flag in NOT_NEEDED:
            self._remarks.append(f"{flag} is not needed: milepost train decides this itself, and the same command goes on")


def _require_sarm(model: str) -> None:
    """Raises ValueError, with the command to type, for a model that is not trained here."""
    if model == "topreward":
        raise ValueError("topreward is zero-shot, so there is nothing to train: milepost label DATASET --model topreward")
    if model != "sarm":
        raise ValueError(
            f"milepost trains reward models, and '{model}' is a policy: LeRobot trains it, by lerobot-train with these same options, and "
            "takes DATASET/sarm_progress.parquet by itself. To see its weights before: milepost weigh DATASET --chunk-size CHUNK_SIZE"
        )
