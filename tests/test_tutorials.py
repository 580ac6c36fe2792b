"""What the tutorials show, runs: their commands and their Python, in the order of the page, on small made-up data.

A command is an indented line. In the block after it is what it prints: what each line begins with is looked for in the output.
"""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from annotator import Annotator, dataset_of, truth_of
from milepost.cli.entry import VERBS, main
from milepost.cli.lerobot_options import options_of
from milepost.datasets import open_dataset
from milepost.testing import ChatServer, Fault, chat_server, dot_episodes, write_dots
from milepost.viewer.marks import Mark, Marks, marks_file

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["teleoperation.md", "bimanual.md", "zero_shot.md", "filtering.md", "rl_reward.md", "what_can_go_wrong.md"]
GO_ON = {
    "zero_shot.md": ["teleoperation.md"],
    "filtering.md": ["teleoperation.md"],
    "what_can_go_wrong.md": ["teleoperation.md", "bimanual.md"],
}
"""Pages that go on where another one ended, in the same folder."""

STANDS_FOR = {
    "so101 --tasks drawer-open-v3 --successes 32 --failures 16": "tried --tasks drawer-open-v3 --successes 1 --size 32 --failures 0",
    "bs=1k seek=100 count=10": "bs=1k seek=10 count=1",
    "observation.images.wrist": "observation.images.top",  # the made-up data have one camera
    "--without 3 ": "--without DAMAGED ",
    " --steps 400": "",
    "--preset small": "--preset small --steps 2 --batch-size 4",
    "audit drawer --model sarm": "audit drawer --model sarm --num-episodes 3 --controls frozen_first shuffled",
    "audit drawer --model elapsed": "audit drawer --model elapsed --num-episodes 3 --controls frozen_first shuffled",
    "audit places --model reward": "audit places --model reward --num-episodes 3 --controls frozen_first shuffled",
    "--chunk-size 50": "--chunk-size 5",
    "--num-prefixes 15": "--num-prefixes 5",
    "--num-episodes 8": "--num-episodes 3",
    "Qwen/Qwen3-VL-30B-A3B-Instruct": "tiny",
    "Qwen/Qwen3-VL-8B-Instruct": "tiny",
    "teetone/RoboReward-8B": "tiny",
    "http://localhost:8000/v1": "SERVER",
    "--episodes 19 ": "--episodes 1 ",
    "--episodes 43 ": "--episodes 2 ",
    "--episodes 18 ": "--episodes 3 ",
    "so101 --episodes 3 ": "so101 --episodes DAMAGED ",
    "--min-final 0.9": "--min-final 0.01",
    "view drawer": "view drawer --port 0",
    "serve --model reward": "serve --model reward --port 0",
    "http://127.0.0.1:7340": "ADDRESS",
    "dot_episodes(60, failing=20)": "dot_episodes(8, failing=2)",
}  # fmt: skip
"""What the tests put in the place of what a page says: sizes and steps, and the servers. SERVER, ADDRESS, DAMAGED are found as they run."""

NOT_RUN = {
    "lerobot-train": "LeRobot is not installed with the tests; its options are compared with those that it has",
    "pip install": "asks the network",
    "vllm serve": "needs a GPU and a checkpoint; a server of milepost.testing stands in its place",
}
EXIT_CODES = {"info so101": {1}, "label so101": {1}, "plot so101": {1}, "audit": {0, 1}}
"""Of commands that may say no. All others must end with 0."""
STAY_OPEN = ("view drawer", "serve --model reward")
"""Commands that go on until Ctrl-C. They print an address; the rest of the page talks to it."""


@dataclass
class Block:
    """A command, a piece of Python, or what a command prints."""

    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    """Returns what a page shows, in its order."""
    text = re.sub(r" *\\\n +", " ", (DOCS / page).read_text())
    pattern = r"^```(\w*)\n(.*?)^```$|^    (\S[^\n]*)$"
    return [
        Block("command", found[3].split("  #")[0].strip()) if found[3] else Block(found[1], found[2])
        for found in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]


def page_of(name: str) -> str:
    return name if name == "what_can_go_wrong.md" else f"tutorials/{name}"


def plain(text: str) -> str:
    return " ".join(text.split())


STAGES = {
    "sparse": ["raise the arms", "fold", "put it down"],
    "dense": ["grasp the corners", "raise", "fold once", "fold twice", "put it away"],
}
LENGTHS = [48, 51, 55, 59, 62, 66]


class Folding(Annotator):
    """Finds the stages of the towels, under the names of the page, a tenth of a second off."""

    def about(self, body: Mapping[str, Any]) -> tuple[int, str, int]:
        words = "".join(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
        duration = re.search(r"The recording lasts ([\d.]+) seconds", words)
        assert duration
        names = re.findall(r'^\d+\. "(.*?)"', words, re.MULTILINE)
        head = next(head for head, stages in STAGES.items() if stages == names)
        return self.durations[duration[1]], head, sum(turn["role"] == "assistant" for turn in body["messages"])

    def claims(self, episode: int, head: str, rng: Any) -> list[dict[str, Any]]:
        return [{**claim, "name": name} for claim, name in zip(super().claims(episode, head, rng), STAGES[head], strict=True)]


class Vlm:
    """A server's VLM. It divides towels into stages; asked how far a task is, it only counts the images: a clock."""

    def __init__(self) -> None:
        self.folding = Folding(truth_of(LENGTHS), LENGTHS, noise_s=0.1)

    def script(self, number: int, body: dict[str, Any]) -> Fault | None:
        return self.folding(number, body) if "The recording lasts" in json.dumps(body) else None

    def lists(self, body: dict[str, Any]) -> list[list[tuple[str, float]]]:
        """The likeliest tokens of an answer: True or False to TOPReward, a grade from 1 to 5 to RoboReward."""
        words = json.dumps(body)
        count = words.count('"type": "image_url"')
        if "ANSWER" not in words:
            yes = math.exp(-9 * 0.8**count)
            return [[(" True", math.log(yes)), (" False", math.log(1 - yes))]]
        grade = str(min(1 + count, 5))
        return [*([(word, 0.0)] for word in ("ANSWER", ":", " ")), [(grade, math.log(0.9)), ("1" if grade != "1" else "2", math.log(0.1))]]


@dataclass
class World:
    """The folder in which all pages are walked through, and what was found out on the way."""

    folder: Path
    server: ChatServer
    capture: pytest.CaptureFixture[str] | None = None
    found: dict[str, str] = field(default_factory=dict)
    walked: set[str] = field(default_factory=set)
    open: list[subprocess.Popen[str]] = field(default_factory=list)

    def ours(self, text: str) -> str:
        for theirs, small in STANDS_FOR.items():
            text = text.replace(theirs, small)
        for name, value in {**self.found, "SERVER": self.server.url}.items():
            text = text.replace(name, value)
        return text

    def walk(self, name: str) -> None:
        """Runs a page from its top to its end, unless it was run already."""
        if name in self.walked:
            return
        self.walked.add(name)
        names: dict[str, Any] = {}
        output = ""
        for block in blocks(page_of(name)):
            if block.kind == "text":
                missing = [line for line in block.text.splitlines() if beginning(line) not in plain(output)]
                assert not missing, f"{name}: not printed: {missing}\n{output}"
                output = ""
            elif block.kind == "python":
                exec(compile(self.ours(block.text), name, "exec"), names)
                output += self.printed()
            elif block.kind == "command" and not block.text.startswith(tuple(NOT_RUN)):
                output += self.run(block.text)
        self.close()

    def close(self) -> None:
        """Ends what stays open, as Ctrl-C does."""
        while self.open:
            with self.open.pop() as process:
                process.send_signal(signal.SIGINT)
                code = process.wait(60)
            assert code in (0, 130), code

    def run(self, command: str) -> str:
        """Runs a command. Returns what it printed."""
        words = shlex.split(self.ours(command), comments=True)
        if words[0] == "dd":
            subprocess.run(words, check=True, capture_output=True)
            return ""
        assert words[0] == "milepost", f"{command}: run it, or give the reason in NOT_RUN"
        if command.removeprefix("milepost ").startswith(STAY_OPEN) and "--export-html" not in words:
            return self.begin(words[1:])
        expected = next((codes for begin, codes in EXIT_CODES.items() if command.startswith(f"milepost {begin}")), {0})
        code, printed = main(words[1:]), self.printed()
        assert code in expected, f"{command}: exit code {code}\n{printed}"
        if damaged := re.findall(r"--without ([\d,-]+) --output-dir NEW", printed):
            self.found["DAMAGED"] = damaged[0]
        return printed

    def begin(self, words: list[str]) -> str:
        """Begins a command that stays open. Returns what it prints until its address is there."""
        process = subprocess.Popen([sys.executable, "-m", "milepost", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.open.append(process)
        assert process.stdout
        printed, stop = "", time.monotonic() + 60
        while time.monotonic() < stop and process.poll() is None:
            printed += process.stdout.readline()
            if address := re.search(r"http://127\.0\.0\.1:\d+", printed):
                self.found["ADDRESS"] = address[0]
                if words[0] == "view":  # a person presses D in an episode
                    dataset = open_dataset(words[1])
                    Marks(marks_file(dataset), dataset).set(5, Mark("drop"))
                return printed
        raise AssertionError(printed)

    def printed(self) -> str:
        assert self.capture
        return "\n".join(self.capture.readouterr())


def beginning(line: str) -> str:
    """Returns the words of a line of output that do not depend on the data: those before its first number, colon, path or two spaces."""
    return plain(re.split(r"\d|[…:/]|(?<=\S)  ", line, maxsplit=1)[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A single arm's recordings, and those of two arms with two cameras. Nothing is trained yet."""
    folder = tmp_path_factory.mktemp("tutorials")
    write_dots(folder / "so101", dot_episodes(12, failing=3))
    dataset_of(folder / "towels", LENGTHS, truth_of(LENGTHS))
    vlm, before = Vlm(), Path.cwd()
    os.chdir(folder)
    with chat_server(script=vlm.script) as server:
        server.lists = vlm.lists
        world = World(folder, server)
        yield world
        world.close()
    os.chdir(before)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_the_page_runs(name: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.capture = capsys
    for page in [*GO_ON.get(name, []), name]:
        world.walk(page)


def commands() -> list[str]:
    return [block.text for name in PAGES for block in blocks(page_of(name)) if block.kind == "command"]


def test_every_tutorial_is_run() -> None:
    assert {path.name for path in (DOCS / "tutorials").glob("*.md")} == set(PAGES) - {"what_can_go_wrong.md"}
    assert {block.kind for name in PAGES for block in blocks(page_of(name))} <= {"command", "python", "text"}


def test_what_is_not_run_is_on_a_page_and_has_a_reason() -> None:
    assert all(any(command.startswith(begin) for command in commands()) for begin in NOT_RUN)
    assert all(any(verb == command.split()[1] for verb in VERBS) for command in commands() if command.startswith("milepost "))
    shown = "\n".join([block.text for name in PAGES for block in blocks(page_of(name))])
    assert [theirs for theirs in STANDS_FOR if theirs not in shown] == [], "no page says this any more"


def test_lerobots_options_are_its_own() -> None:
    listed = (Path(__file__).parent / "data" / "lerobot_train_options.txt").read_text().splitlines()
    known = {line for line in listed if line.startswith("--")} | set(options_of("train"))
    lines = [command for command in commands() if command.startswith("lerobot-train")]
    assert lines
    for line in lines:
        options = [word.partition("=")[0] for word in shlex.split(line)[1:]]
        assert [option for option in options if option not in known] == []


def test_a_tutorial_is_short() -> None:
    assert [path.name for path in (DOCS / "tutorials").glob("*.md") if len(path.read_text().splitlines()) > 150] == []
