"""An option that would have no effect is refused, and the message says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from idle import resting_dataset
from parquet_content import tree
from test_cli import assert_refused, milepost


@pytest.fixture(scope="module")
def rests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resting_dataset(tmp_path_factory.mktemp("effects") / "rests")


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (("copy", "--trim-threshold", "0.02", "--restamp"), "--trim-threshold has an effect only with --trim-idle"),
        (("copy", "--trim-margin-s", "1", "--restamp"), "--trim-margin-s has an effect only with --trim-idle"),
        (("copy", "--review-file", "x.json", "--trim-idle", "both"), "--review-file has an effect only with --drop or --keep"),
        (("advantage", "--form", "column", "--overwrite"), "--overwrite has an effect only with --form rlinf"),
        (("annotate", "--to-file", "x.csv", "--output-path", "out"), "--output-path has an effect only where annotations are written"),
        (("annotate", "--from-language", "sparse", "--subtask-index"), "--subtask-index has an effect only when a model is asked, or with"),
        (("annotate", "--export", "--base-url", "http://localhost:1/v1"), "--base-url has an effect only when a model is asked"),
        (("annotate", "--export", "--repeats", "3"), "--repeats has an effect only when a model is asked"),
        (("annotate", "--model", "tiny"), "--model has an effect only with stages to ask about"),
        (("annotate", "--sparse-subtasks", "a,b", "--timeout-s", "9"), "--timeout-s has an effect only with --base-url"),
        (
            ("annotate", "--sparse-subtasks", "a,b", "--base-url", "http://x/v1", "--device", "cpu"),
            "--device has an effect only without",
        ),
        (("annotate", "--import", "x.csv", "--retry-failed"), "--retry-failed has an effect only when a model is asked"),
    ],
    ids=lambda each: " ".join(each[:3]) if isinstance(each, tuple) else "",
)
def test_an_option_without_an_effect_is_refused(rests: Path, tmp_path: Path, words: tuple[str, ...], needs: str) -> None:
    before, (verb, *options) = tree(rests), words
    out = () if verb == "annotate" else ("--output-dir", tmp_path / "new")
    assert_refused(milepost(verb, rests, *options, *out), needs)
    assert tree(rests) == before
    assert not (tmp_path / "new").exists()
