"""`milepost audit` end to end: verdicts, exit codes, files, what is refused, and a server that costs money."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import milepost
from milepost import metrics, progress
from milepost.cli.entry import main
from milepost.cli.view import Args, open_review
from milepost.figures import write_audit
from milepost.metrics.audit import Property
from milepost.testing import Fault, chat_server, dot_episodes, tiny_sarm, write_dots
from milepost.testing.server import TinyModel
from reviewed import page_of
from test_goes_on import Damaged


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit") / "dots"
    write_dots(root, dot_episodes(9, failing=3, tasks=2))
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_a_clock_is_called_one(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = tree(dots)
    assert main(["audit", str(dots), "--model", "elapsed"]) == 1
    out = capsys.readouterr().out
    assert "verdict: clock: it rises with time, whatever is seen" in " ".join(out.split())
    assert tree(dots) == before
    record = json.loads((tmp_path / "audit_elapsed" / "audit.json").read_text())
    assert record["verdict"] == "clock"
    assert record["rows"]["frozen"]["value"] == pytest.approx(1, abs=0.01)
    assert record["episodes"] == list(range(9))
    assert (tmp_path / "audit_elapsed" / "audit.png").stat().st_size > 10_000


def test_numbers_as_json_and_a_few_controls(dots: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["audit", str(dots), "--model", "elapsed", "--controls", "frozen_first", "shuffled", "--json", "--num-episodes", "9"]
    assert main(given) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] == "clock"
    assert record["rows"]["end_ahead"]["value"] is None
    assert {0, 8} < set(record["episodes"])  # successes and failures
    assert record["beside"]["elapsed"]["verdict"] == "clock"


def test_an_untrained_model_says_nothing(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_sarm().save_pretrained(tmp_path / "model")
    assert main(["audit", str(dots), "--model", "model", "--no-cache", "--json", "--output-dir", "out", "--format", "svg"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["verdict"] == "says nothing"
    assert set(record["beside"]) == {"elapsed", "untrained"}
    assert (tmp_path / "out" / "audit.svg").read_text().startswith("<?xml")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_episodes_that_taught_the_model_are_said(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_sarm().save_pretrained(tmp_path / "model")
    given = ["audit", str(dots), "--model", "model", "--no-cache", "--controls", "frozen_first", "--episodes", "0-2"]
    for unseen, says in (([2, 7], "those it never saw: --episodes 2,7"), ([], "none was held out from it")):
        about = {"dataset": "dots", "train_episodes": [0], "validation_episodes": [1], "held_out": unseen}
        (tmp_path / "model" / "evaluation.json").write_text(json.dumps(about))
        main(given)
        assert f"2 of these 3 episodes taught this model; {says}" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "model" / "evaluation.json").write_text(json.dumps(about | {"dataset": "another"}))
    main(given)
    assert "taught" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--controls", "upside_down"], "there is no control 'upside_down'; there are frozen_first"),
        (["--num-episodes", "0"], "--num-episodes must be at least 1"),
        (["--controls", "shuffled", "cut_50", "shuffled"], "the controls have 'shuffled' twice; name each of them once"),
        (["--controls", "all", "shuffled"], "--controls all runs every control; give it alone, or give names without it"),
        (["--episodes", "0-3", "--num-episodes", "20"], "--episodes says which episodes are audited and --num-episodes how many"),
        (["--head-mode", "dense"], "dense"),
        (["--episodes", "77"], "77"),
    ],
)
def test_what_is_refused(dots: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["audit", str(dots), "--model", "elapsed", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


PREFIXES = 4
"""With fewer than four an audit can judge nothing, and stops."""


class Decided(TinyModel):
    """A model that always has "True" among its likeliest tokens, so that every prefix has a score."""

    def answer(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, float]], int]:
        """Returns what `TinyModel` says, with less doubt about "True"."""
        tokens, length = super().answer(body)
        return [(token, value / 100 if token.strip().lower() == "true" else value) for token, value in tokens], length


def asking(url: str, dataset: Path) -> list[str]:
    return ["audit", str(dataset), "--model", "topreward", "--vlm-name", "tiny", "--base-url", url, "--num-prefixes", str(PREFIXES)]


def test_a_server_is_not_asked_without_consent(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with chat_server(model=Decided()) as server:
        call = [*asking(server.url, dots), "--controls", "frozen_first", "shuffled", "--num-episodes", "2"]
        assert main(call) == 2
        error = " ".join(capsys.readouterr().err.split())
        questions = 2 * 3 * PREFIXES
        words = f"the audit will ask the server up to {questions} questions about 2 episodes, and 2 to find out how it answers; add --yes"
        assert words in error
        assert (server.bodies, list(tmp_path.iterdir())) == ([], [])
        assert main([*call, "--yes"]) == 1
        assert len(server.bodies) == questions + 2  # the number is exact where nothing fails
        assert f"server: {questions + 2} answers, {questions + 2} requests, 0 retries" in " ".join(capsys.readouterr().err.split())
        assert main(call) == 1  # finished episodes are not asked about again, so there is nothing to consent to
        assert len(server.bodies) == questions + 2
        assert "will ask" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "options", "copies"),
    [(2, [], 20), (1, [], 19), (1, ["--task", "visit the places"], 20), (2, ["--controls", "all"], 20)],
)
def test_only_copies_that_are_asked_about_are_counted(
    tasks: int, options: list[str], copies: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of the 22 controls one needs a second camera, one a second instruction, and one an instruction for copies that have none."""
    write_dots(tmp_path / "set", dot_episodes(2, tasks=tasks))
    with chat_server(model=Decided()) as server:
        assert main([*asking(server.url, tmp_path / "set"), *options, "--yes"]) == 1
        announced = int(capsys.readouterr().err.split("the audit will ask the server up to ")[1].split()[0])
        assert len(server.bodies) == announced + 2
        asked_with_one_copy_less = 2 * PREFIXES * copies
        assert asked_with_one_copy_less < announced <= asked_with_one_copy_less + 2 * PREFIXES, "the shortest copies have fewer prefixes"


def test_every_prefix_of_longer_copies_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without --num-prefixes a copy that is longer than the recording is asked about more often than the recording is."""
    write_dots(tmp_path / "set", dot_episodes(1))
    with chat_server(model=Decided()) as server:
        call = asking(server.url, tmp_path / "set")[:-2]
        assert main([*call, "--controls", "regressed", "cut_50", "--yes"]) == 1
        announced = int(capsys.readouterr().err.split("up to ")[1].split()[0])
        assert len(server.bodies) == announced + 2


def test_after_an_interruption_the_rest_is_announced(dots: Path, capsys: pytest.CaptureFixture) -> None:
    broken: list[bool] = [True]
    with chat_server(
        model=Decided(), script=lambda number, body: Fault(401, "the key has expired") if broken[0] and number >= 2 + 4 * PREFIXES else None
    ) as server:
        call = [*asking(server.url, dots), "--controls", "frozen_first", "shuffled", "--episodes", "0-3"]
        assert main([*call, "--yes"]) == 2
        assert "the key has expired" in capsys.readouterr().err
        broken[0] = False
        before = len(server.bodies)
        assert main(call) == 2
        error = " ".join(capsys.readouterr().err.split())
        questions = 3 * 3 * PREFIXES
        assert (
            f"up to {questions} questions about 3 episodes (1 other was finished by an earlier run), and 2 to find out how it answers"
            in error
        )
        assert main([*call, "--yes"]) == 1
        assert len(server.bodies) - before == questions + 2


def test_a_paid_audit_that_cannot_be_judged_stops_after_one_recording(dots: Path, capsys: pytest.CaptureFixture) -> None:
    with chat_server(model=Decided()) as server:
        call = [*asking(server.url, dots)[:-1], "3", "--num-episodes", "2", "--yes"]
        assert main(call) == 2
        assert "the audit stops before it asks more: episode" in (error := " ".join(capsys.readouterr().err.split()))
        assert "give more than --num-prefixes 3" in error
        assert len(server.bodies) == 3 + 2


@pytest.mark.parametrize("text", ['{"findings": []}', "not JSON", '{"model": 3, "dataset": "dots", "verdict": "reward"}'])
def test_a_foreign_audit_json_stays(text: str, dots: Path, capsys: pytest.CaptureFixture) -> None:
    Path("here").mkdir()
    Path("here/audit.json").write_text(text)
    assert main(["audit", str(dots), "--model", "elapsed", "--num-episodes", "2", "--output-dir", "here"]) == 2
    assert "so it is not replaced; remove it, or choose another folder (--output-dir)" in " ".join(capsys.readouterr().err.split())
    assert Path("here/audit.json").read_text() == text


def test_episodes_are_chosen_in_python_too(dots: Path) -> None:
    run = milepost.audit(milepost.ElapsedModel(), dots, episodes="0-1,4")
    assert [each.episode for each in run.curves] == [0, 1, 4]


def test_an_audit_of_another_model_is_not_replaced(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In one folder stands one audit: of the same model and dataset again, whatever the figure's format; never another's."""
    call = ["audit", str(dots), "--controls", "frozen_first", "--num-episodes", "5", "--output-dir", "here"]
    assert main([*call, "--model", "elapsed", "--format", "svg"]) in (0, 1)
    assert main([*call, "--model", "elapsed"]) in (0, 1)
    assert sorted(path.name for path in Path("here").iterdir()) == ["audit.json", "audit.png", "curves"]
    tiny_sarm().save_pretrained("sarm")
    capsys.readouterr()
    assert main([*call, "--model", "sarm"]) == 2
    assert "here has the audit of elapsed on dots; choose another folder (--output-dir)" in " ".join(capsys.readouterr().err.split())
    assert json.loads(Path("here/audit.json").read_text())["model"] == "elapsed"


def test_an_audit_in_python_is_written_as_the_command_writes_it(dots: Path, tmp_path: Path) -> None:
    dataset = milepost.open_dataset(dots)
    run = milepost.audit(milepost.ElapsedModel(), dataset)
    write_audit(run, tmp_path / "new" / "audit", dataset, model="elapsed", taught=[0, 1])
    assert milepost.export_page(dataset, "page.html", audit=tmp_path / "new" / "audit", episodes=[0]) == []
    assert "the model learnt from 2 of these" in Path("page.html").read_text()
    assert len(repr(run)) < 3000


def test_a_dataset_that_cannot_be_read_in_parts_goes_on() -> None:
    dataset = Damaged(dot_episodes(7))
    run = milepost.audit(milepost.ElapsedModel(), dataset)
    assert (run.audit.verdict, run.audit.episodes) == ("clock", 6)
    assert run.unreadable == {1: "episode 1: its rows are gone"}
    dataset.bad = tuple(range(7))
    with pytest.raises(milepost.DataError, match="no episode of dots can be read: episode 0: its rows are gone"):
        milepost.audit(milepost.ElapsedModel(), dataset)


def test_nothing_can_be_read(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dots(tmp_path / "two", dot_episodes(6))
    (video,) = (tmp_path / "two").rglob("*.mp4")
    video.write_bytes(video.read_bytes()[:2000])
    assert main(["audit", "two", "--model", "elapsed"]) == 2
    assert "no episode of two can be audited" in capsys.readouterr().err


def test_the_review_page_shows_the_verdict_first(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["audit", str(dots), "--model", "elapsed"]) == 1
    assert main(["view", str(dots), "--audit", "audit_elapsed", "--export-html", "page.html", "--episodes", "0"]) == 0
    page = (tmp_path / "page.html").read_text()
    report = page.split('<template id="report">')[1].split("</template>")[0]
    assert "Audit: clock" in report
    assert "follows what is seen" in report
    assert report.count("data:image/png;base64,") == 1
    assert milepost.export_page(dots, "again.html", episodes=[0], audit="audit_elapsed") == []
    assert report in (tmp_path / "again.html").read_text()
    dataset = milepost.open_dataset(dots)
    served = open_review(Args(str(dots), audit=tmp_path / "audit_elapsed"))
    with page_of(served) as client:
        assert report in client.get("/").text
    assert dataset.name in report


def test_an_audit_that_does_not_fit_is_refused(dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = tmp_path / "other"
    write_dots(other, dot_episodes(3))
    (tmp_path / "audit_elapsed" / "audit.json").unlink(missing_ok=True)
    assert main(["audit", str(other), "--model", "elapsed", "--controls", "frozen_first", "--format", "pdf"]) in (0, 1)
    export = ["view", str(dots), "--export-html", "page.html", "--audit"]
    assert main([*export, "audit_elapsed"]) == 2
    assert "was made for another dataset" in capsys.readouterr().err
    assert main([*export, "nothing"]) == 2
    assert "nothing/audit.json" in capsys.readouterr().err
    for broken in ("[]", '{"verdict": "clock"}', '{"dataset": 3, "dataset_fingerprint": null, "verdict": []}'):
        (tmp_path / "audit_elapsed" / "audit.json").write_text(broken)
        assert main([*export, "audit_elapsed"]) == 2
        assert "audit.json" in capsys.readouterr().err
    (tmp_path / "audit_elapsed" / "audit.json").unlink(missing_ok=True)
    assert main(["audit", str(other), "--model", "elapsed", "--controls", "frozen_first", "--format", "pdf"]) in (0, 1)
    assert main(["view", str(other), "--export-html", "other.html", "--audit", "audit_elapsed"]) == 0
    assert "has no audit.png" in (tmp_path / "other.html").read_text()


def replaced_audit(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """Lets the command find another audit than the one that it computed."""
    run_audit = progress.run_audit

    def run(*args: object, **options: object) -> progress.AuditRun:
        result = run_audit(*args, **options)
        unreadable = values.get("unreadable", result.unreadable)
        fields = {name: value for name, value in values.items() if name != "unreadable"}
        return dataclasses.replace(result, audit=dataclasses.replace(result.audit, **fields), unreadable=unreadable)

    monkeypatch.setattr("milepost.progress.run_audit", run)


FAILS, PASSES = Property("bears noise", "fails", "it does not"), Property("uses the images", "passes", "it does")


@pytest.mark.parametrize(
    ("verdict", "properties", "unreadable", "code"),
    [
        ("reward", [PASSES], {}, 0),
        ("reward", [PASSES, FAILS], {}, 1),
        ("reward", [PASSES], {3: "no video"}, 1),
        *((verdict, [PASSES], {}, 1) for verdict in metrics.VERDICTS if verdict != "reward"),
    ],
)
def test_exit_code_is_0_for_a_reward_without_faults_alone(
    verdict: str,
    properties: Sequence[Property],
    unreadable: dict[int, str],
    code: int,
    dots: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    replaced_audit(monkeypatch, verdict=verdict, properties=properties, unreadable=unreadable)
    assert main(["audit", str(dots), "--model", "elapsed", "--controls", "frozen_first", "--episodes", "0-1"]) == code


def test_the_reason_stands_beside_the_verdict(
    dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    replaced_audit(monkeypatch, reason="frozen frames keep <all> of its rise")
    assert main(["audit", str(dots), "--model", "elapsed", "--controls", "frozen_first", "shuffled"]) == 1
    words = "it rises with time, whatever is seen (frozen frames keep <all> of its rise)"
    assert f"verdict: clock: {words}" in " ".join(capsys.readouterr().out.split())
    path = tmp_path / "audit_elapsed" / "audit.json"
    record = json.loads(path.read_text())
    assert record["reason"] == "frozen frames keep <all> of its rise"
    milepost.export_page(dots, "page.html", episodes=[0], audit="audit_elapsed")
    assert "it rises with time, whatever is seen (frozen frames keep &lt;all&gt; of its rise)." in Path("page.html").read_text()
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "reason"}))
    milepost.export_page(dots, "older.html", episodes=[0], audit="audit_elapsed")
    assert "it rises with time, whatever is seen." in Path("older.html").read_text()


@pytest.mark.parametrize(
    ("options", "says", "is_silent"),
    [
        (["--episodes", "0-2"], "and 3 of these are such; to audit more: --num-episodes 9 instead of --episodes", "--controls all"),
        (["--num-episodes", "3"], 'the verdict will be "cannot be said": it takes 5 episodes that succeeded, or may have', "instead of"),
        (["--controls", "cut_50"], "these controls are missing: frozen_first, shuffled; to run them all: --controls all", "--num-episodes"),
        (["--controls", "reversed", "--episodes", "8"], "0 of these are such; to audit more: --num-episodes 9 instead of", "nothing else"),
        (["--controls", "frozen_last", "--num-episodes", "9"], "these controls are missing: shuffled;", "frozen_first,"),
    ],
)
def test_what_is_missing_for_a_verdict_and_what_to_type(
    options: list[str], says: str, is_silent: str, dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    replaced_audit(monkeypatch, verdict="cannot be said")
    assert main(["audit", str(dots), "--model", "elapsed", *options]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert says in error
    assert is_silent not in error


def test_a_dataset_with_too_few_episodes_for_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dots(tmp_path / "set", dot_episodes(3))
    assert main(["audit", "set", "--model", "elapsed", "--json"]) == 1
    out, error = capsys.readouterr()
    assert json.loads(out)["verdict"] == "cannot be said"
    assert "and 3 of these are such; these are all 3 of the dataset: record more, or audit another dataset" in " ".join(error.split())


def test_too_few_episodes_are_named_before_anything_is_computed(
    dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ValueError("it computes")

    monkeypatch.setattr("milepost.progress.run_audit", refuse)
    for episodes, is_told in (("0-3", True), ("0-4", False), ("4-8", True)):  # of 4-8 three failed
        main(["audit", str(dots), "--model", "elapsed", "--episodes", episodes])
        first, *_ = capsys.readouterr().err.splitlines()
        assert first.startswith('the verdict will be "cannot be said": it takes 5 episodes') == is_told


def test_episodes_that_cannot_be_judged_are_named_at_the_end(
    dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = dict.fromkeys(metrics.ROWS, metrics.Estimate(0.5, 0.4, 0.6, 3))
    replaced_audit(monkeypatch, verdict="cannot be said", rows=rows)
    main(["audit", str(dots), "--model", "elapsed", "--episodes", "0-5"])
    error = " ".join(capsys.readouterr().err.split())
    assert "there is no verdict: it takes 5 episodes that succeeded, or may have, and 3 could be judged; to audit more" in error


def test_controls_that_were_left_out_are_grouped_by_reason(dots: Path, capsys: pytest.CaptureFixture) -> None:
    main(["audit", str(dots), "--model", "elapsed", "--controls", "other_camera", "frozen_first", "shuffled"])
    out = " ".join(capsys.readouterr().out.split())
    assert "controls left out (it was not asked for): frozen_middle, frozen_last, reversed, cut_50," in out
    assert "controls left out (there is one camera): other_camera" in out
    assert out.count("controls left out") == 2


def test_many_unreadable_episodes_are_few_lines(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    replaced_audit(monkeypatch, unreadable=dict.fromkeys(range(20, 40), "no video"))
    assert main(["audit", str(dots), "--model", "elapsed", "--controls", "frozen_first", "shuffled"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "episode 24 is left out: no video 15 more episodes are left out: 25-39" in error


PLACES: dict[str, Callable[[Path], Path]] = {
    "itself": lambda dataset: dataset,
    "inside": lambda dataset: dataset / "audits" / "new",
    "in meta": lambda dataset: dataset / "meta",
    "another": lambda dataset: dataset.parent / "other",
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_written_into_a_dataset(place: str, dots: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = tmp_path / "own"
    shutil.copytree(dots, dataset)
    shutil.copytree(dots, tmp_path / "other")
    folder, before = PLACES[place](dataset), tree(tmp_path)
    assert main(["audit", "own", "--model", "elapsed", "--output-dir", str(folder)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "into which no audit is written; choose another folder (--output-dir)" in error
    assert tree(tmp_path) == before
    with pytest.raises(milepost.DataError, match="no audit is written"):
        write_audit(milepost.audit(milepost.ElapsedModel(), dataset), folder, milepost.open_dataset(dataset), model="elapsed")


def test_the_default_folder_is_not_in_a_dataset_either(
    dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(dots, tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path / "own", target_is_directory=True)
    (tmp_path / "file").write_text("mine")
    assert main(["audit", "own", "--model", "elapsed", "--output-dir", "link/audit"]) == 2
    assert "lies in the dataset" in " ".join(capsys.readouterr().err.split())
    assert main(["audit", "own", "--model", "elapsed", "--output-dir", "file"]) == 2
    assert "file is a file, and the audit is written to a folder" in " ".join(capsys.readouterr().err.split())
    monkeypatch.chdir(tmp_path / "own")
    assert main(["audit", ".", "--model", "elapsed"]) == 2
    assert "audit_elapsed lies in the dataset" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "own" / "audit_elapsed").exists()


def test_controls_that_some_episodes_lack_are_said(dots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress.AuditRun, "partial", lambda run: {"half_rate": 7, "empty_task": 2})
    main(["audit", str(dots), "--model", "elapsed", "--controls", "frozen_first"])
    assert "controls of some episodes alone: half_rate (7 of 9), empty_task (2 of 9)" in " ".join(capsys.readouterr().out.split())


def test_one_episode_is_said_as_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dots(tmp_path / "one", dot_episodes(1))
    assert main(["audit", "one", "--model", "elapsed"]) == 1
    out, error = (" ".join(each.split()) for each in capsys.readouterr())
    assert "1 episode of one (95 % intervals over episodes)" in out
    assert "1 of these is such; this is the dataset's only episode: record more" in error


def test_the_heading_has_both_counts_and_a_reason_stands_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dots(tmp_path / "few", dot_episodes(3, failing=1))
    main(["audit", "few", "--model", "elapsed", "--controls", "frozen_first", "shuffled", "brightness_0.8", "brightness_1.2"])
    out = " ".join(capsys.readouterr().out.split())
    assert "3 episodes of few (95 % intervals over episodes; most rows rest on the 2 that succeeded or may have)" in out
    assert "the same reason" in out
