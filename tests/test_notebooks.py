"""The notebooks of the site run from top to bottom, each in a kernel and an empty folder of its own, without network."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebooks need nbclient and ipykernel, which are in the extra dev")
nbclient = pytest.importorskip("nbclient", reason="the notebooks need nbclient and ipykernel, which are in the extra dev")

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path):
    """Returns the notebook after all of its cells ran."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return notebook


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_are_notebooks_and_the_page_links_them() -> None:
    page = (FOLDER.parent / "notebooks.md").read_text()
    assert len(NOTEBOOKS) == 2
    assert [path.name for path in NOTEBOOKS if f"(notebooks/{path.name})" not in page] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_sound_and_has_no_outputs(path: Path) -> None:
    """Outputs would be old after the next change, and make the repository large."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs(notebook) == []
    assert "# %pip install milepost" in "".join(cell.source for cell in notebook.cells)
    assert path.stat().st_size < 30_000


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # those of the kernel's packages
@pytest.mark.parametrize(("name", "figures"), [("label_and_look", 3), ("weigh_and_train", 2)])
def test_a_notebook_runs(name: str, figures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", os.fspath(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path / "runtime"))
    made = outputs(run(FOLDER / f"{name}.ipynb", tmp_path))
    assert sum("image/png" in output.get("data", {}) for output in made) == figures
    printed = "".join(output.text for output in made if output.output_type == "stream" and output.name == "stdout")
    if name == "weigh_and_train":
        weighed, plain = (float(line.split(" at ")[1].split()[0]) for line in printed.splitlines() if "moves at" in line)
        assert weighed > plain, "the weights are there so that the robot does not stand still"
    else:
        assert "16 episodes, 460 frames" in printed
