"""`milepost audit` end to end: verdicts, exit codes, files, what is refused, and a server that costs money."""

import hashlib
import json
from pathlib import Path

import pytest

import milepost
from milepost.cli.entry import main
from milepost.cli.view import Args, open_review
from milepost.figures import write_audit
from milepost.testing import chat_server, dot_episodes, tiny_sarm, write_dots
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
        (["--head-mode", "dense"], "dense"),
        (["--episodes", "77"], "77"),
    ],
)
def test_what_is_refused(dots: Path, tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["audit", str(dots), "--model", "elapsed", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_server_is_not_asked_without_consent(dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with chat_server() as server:
        given = ["audit", str(dots), "--model", "topreward", "--vlm-name", "tiny", "--base-url", server.url, "--num-prefixes", "3"]
        given += ["--controls", "frozen_first", "shuffled", "--num-episodes", "2"]
        before = len(server.bodies)
        assert main(given) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "the audit will ask the server up to 18 questions about 2 episodes, and 2 to find out how it answers; add --yes" in error
        probes = len(server.bodies) - before
        assert main([*given, "--yes"]) in (0, 1)
        assert probes == 0  # nothing is asked before consent; afterwards two requests find out how the server answers
        assert len(server.bodies) - before <= 18 + 2
        capsys.readouterr()
        asked = len(server.bodies)
        assert main([*given, "--yes"]) in (0, 1)  # finished episodes are not asked about again
        assert len(server.bodies) - asked <= 2


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
    assert main(["audit", str(other), "--model", "elapsed", "--controls", "frozen_first", "--format", "pdf"]) in (0, 1)
    assert main(["view", str(other), "--export-html", "other.html", "--audit", "audit_elapsed"]) == 0
    assert "has no audit.png" in (tmp_path / "other.html").read_text()
