"""Whose warnings fail the suite: those attributed to a file of ours. Those of other packages are printed and pass."""

import warnings

import pytest

WARN = "import warnings\nwarnings.warn('old', DeprecationWarning)\n"


@pytest.mark.parametrize(
    "module", ["milepost", "milepost.vlm.layers", "test_fit", "models.test_contract", "conftest", "vlm.conftest", "builders"]
)
def test_what_our_files_cause_is_an_error(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="old"):
        exec(WARN, {"__name__": module})


@pytest.mark.parametrize("module", ["transformers.models", "torch", "mileposts", "numpy.testing", "their_test.tools"])
def test_what_others_cause_is_none(module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:  # keeps the filters, unlike pytest's own recorder
        exec(WARN, {"__name__": module})
    assert [str(each.message) for each in seen] == ["old"]
