"""The options of `milepost label`. `--model` may be given several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from milepost import models, scale
from milepost.cli.several_datasets import DatasetsFile, MoreDatasets, with_listed

_ONE_A_LINE: PrimitiveConstructorSpec[tuple[str, ...]] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="STR",
    instance_from_str=lambda words: tuple(words[0].split("\n")),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: ["\n".join(value)],
)
"""How the parser reads `--model`: it takes an option once, so `rewritten` puts the models of a command line into one word, one a line."""


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """LeRobot dataset: a folder, a Hub id or an address (s3://...). Several datasets are labelled one after the
    other, and the models are loaded once."""
    model: Annotated[tuple[str, ...], _ONE_A_LINE, tyro.conf.arg(aliases=["--reward-model-path"])]
    """Model folder or Hub id; or the name of a model that needs no folder: "topreward" (zero-shot), "elapsed" (a clock), or one of another
    package. A folder of such a name is written ./elapsed. For the options of another package's: milepost label --model NAME --help.
    Several models, each with its own --model, label in one reading of the dataset."""
    more_datasets: MoreDatasets = ()
    """Further datasets."""
    datasets_file: DatasetsFile = None
    """A text file with one dataset a line, as many as there are; folders are looked for beside it, and "-" is standard input."""
    model_options: Annotated[models.ModelOptions, tyro.conf.arg(prefix_name=False)] = field(default_factory=models.ModelOptions)
    task: str | None = None
    """Instruction for episodes without one; SARM uses it for all episodes."""
    head_mode: Literal["sparse", "dense", "both"] = "sparse"
    """Heads to write; dense and both write both columns."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the networks. auto: float32, but bfloat16 for a VLM on a GPU. SARM has no float16."""
    output_path: Path | None = None
    """File to write; default: beside the dataset. Required for a Hub dataset. With several models: the folder of their files. With several
    datasets: the folder in which each has a folder of its own name."""
    episodes: str | None = None
    """Episodes to label, such as 0-9,12 or 0 1 2; default: all."""
    revision: str | None = None
    device: str = "auto"
    overwrite: bool = False
    """Replace a progress file of another model, or of other options."""
    num_visualizations: int = 0
    """Also draw the first so many episodes, as `milepost plot` does."""
    output_dir: Path = Path("progress_plots")
    """Folder of these figures."""
    push_to_hub: bool = False
    """Also upload the file into the Hub dataset's own repository, or that of --output-repo-id."""
    output_repo_id: str | None = None
    """Hub dataset to upload to, which must hold the same episodes."""
    json: bool = False
    ray_options: Annotated[scale.RayOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=scale.RayOptions)


def flags() -> set[str]:
    """Returns the names of all options, as the settings of a run have them."""
    groups = (vars(getattr(models.ModelOptions(), group)) for group in vars(models.ModelOptions()))
    return {*Args.__dataclass_fields__, *(name for group in groups for name in group)}


def rewritten(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with all models in the first `--model`, one a line, as the parser takes them.

    >>> rewritten(["towels", "--model", "sarm", "--stride", "2", "--model=elapsed"])
    ['towels', '--model', 'sarm\\nelapsed', '--stride', '2']
    """
    arguments = with_listed(scale.with_address(arguments))
    paths = models.paths_named(arguments)
    if len(paths) < 2:
        return arguments
    others, place = list[str](), 0
    while place < len(arguments):
        flag, mark, _ = arguments[place].partition("=")
        if models.names_model(flag):
            if "--model" not in others:
                others += ["--model", "\n".join(paths)]
            place += 1 if mark else 2
        else:
            others.append(arguments[place])
            place += 1
    return others
