"""What the help of each verb shows first: its three main options and some examples; and the titles under which the others stand.

The sentence that opens a verb's help is the first line of its file. Options of a group (a dataclass among a verb's options) stay together
under the title in `plain_help.HEADINGS`; every other option stands under one of the titles here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VerbHelp:
    """The help of one verb. main: the options that people use most. examples: what follows the verb -> what it is for.
    code_1: when the exit code is 1, in words behind "1 if"; empty if it never is.

    titles: of options that only this verb has -> these options. They stand before the titles that all verbs share.
    """

    main: tuple[str, ...]
    examples: Mapping[str, str]
    titles: Mapping[str, str] = field(default_factory=dict)
    code_1: str = ""

    @property
    def exit_codes(self) -> str:
        """Returns the sentence about the exit codes."""
        return f"Exit code: 0 if all went well; {f'1 if {self.code_1}; ' if self.code_1 else ''}2 if it could not be done."


HELP = {
    "demo": VerbHelp(
        ("--output-dir", "--tasks", "--workers"),
        {
            "": "The whole demonstration. It takes about six minutes on two cores.",
            "--tasks drawer-open-v3 --output-dir drawer": "One task alone, in a folder of your choice.",
        },
        {"how large the demonstration is": "--successes --failures --holdout --steps --chunk-size"},
    ),
    "info": VerbHelp(
        ("--quick", "--deep", "--json"),
        {
            "towels": "What is in the dataset, what is wrong with it, and what to type next.",
            "lerobot/pusht --quick": "A dataset of the Hub, without decoding an image.",
            "towels --deep": "Decode every image, to find damaged videos.",
        },
        code_1="the dataset has errors",
    ),
    "import": VerbHelp(
        ("--output-dir", "--task", "--format"),
        {
            "recordings.hdf5 --output-dir towels": "Look at the source, find out its format, and convert it.",
            'videos --output-dir towels --task "fold the towel"': "Videos without an instruction get this one.",
            "data.zarr --output-dir towels --format zarr --fps 10": "Say what the source does not say itself.",
            "old --output-dir towels --without 6,11": "Make v3.0 of a LeRobot v2.1 dataset, without its damaged episodes.",
        },
        code_1="episodes without a frame were left out",
    ),
    "simulate": VerbHelp(
        ("--tasks", "--successes", "--failures"),
        {
            "sim": "A dataset of the usual tasks.",
            "sim --tasks drawer-open-v3 --successes 8 --failures 4": "A small dataset of one task.",
        },
    ),
    "annotate": VerbHelp(
        ("--sparse-subtasks", "--model", "--base-url"),
        {
            'towels --sparse-subtasks "reach, grasp, fold"': "Ask a local model where these stages are.",
            "towels --sparse-file stages.txt --base-url http://localhost:8000/v1": "Ask a server, with the stages from a file.",
            "towels --to-file stages.csv": "Write the stages into a file in which you can correct them.",
            "towels --import stages.csv --overwrite": "Put the corrected stages into the dataset.",
        },
        {
            "which answers are used": "--skip-existing --retry-failed --restart --store --export --import "
            "--from-subtask-index --from-language",
            "where the annotations go": "--to-file --to-language --subtask-index --output-path --overwrite --push-to-hub --output-repo-id",
            "figures of the annotations": "--num-visualizations --visualize-only --visualize-type --output-dir",
        },
        code_1="an episode has no annotation afterwards, or one in the copy of --to-language is damaged",
    ),
    "train": VerbHelp(
        ("--output-dir", "--model", "--preset"),
        {
            "towels --output-dir sarm --preset small": "A small model, without annotation and without a GPU.",
            "towels --output-dir sarm --annotation-mode dual": "Learn the stages that `milepost annotate` wrote, coarse and fine.",
            "towels --output-dir value --model value": "A model of the time to success, which learns from failures too.",
            "towels --output-dir sarm --epochs 5 --holdout 0.2": "Train for longer, and test on a fifth of the scenes.",
        },
        {
            "what the model sees": "--annotation-mode --encoder --no-cache --image-key --state-key --n-obs-steps --gap-s --frame-gap "
            "--window --for-lerobot",
            "how it is trained": "--unfinished --augmentation --steps --epochs --batch-size --lr --mixed-precision",
            "how it is tested": "--holdout --validation --eval-every --patience",
            "what is recorded of the training": "--log-to --project --run-name",
        },
        code_1="an episode could not be used and was left out, though the model is made",
    ),
    "label": VerbHelp(
        ("--model", "--episodes", "--output-path"),
        {
            "towels --model sarm": "Label with a model that you trained; the file goes beside the dataset.",
            "towels --model topreward --episodes 0-9": "Ask a vision-language model about ten episodes; no training.",
            "towels --model sarm --model elapsed": "Two models at once: yours, and a clock to compare it with.",
            "lerobot/pusht --model sarm --output-path pusht.parquet": "A dataset of the Hub needs a file to write.",
        },
        {"figures of the first episodes": "--num-visualizations --output-dir"},
        code_1="frames are without progress, though the file is made",
    ),
    "weigh": VerbHelp(
        ("--chunk-size", "--preset", "--figure"),
        {
            "towels": "LeRobot's rule; the weights go beside the progress file.",
            "towels --chunk-size 30 --figure weights.png": "A policy that predicts 30 actions at once; with a figure.",
            "towels --dry-run": "See what these weights would do, and write nothing.",
            "towels --preset study": "The setting that gained most in our study (docs/rabc_study.md).",
        },
        {"what is read for the weights": "--fps"},
        code_1="a figure could not be drawn, though the weights are made",
    ),
    "advantage": VerbHelp(
        ("--dry-run", "--form", "--output-dir"),
        {
            "towels --dry-run": "See which frames would become positive, and write nothing.",
            "towels --output-dir labels": "Write the labels as RLinf reads them.",
            "towels --form column --output-dir towels_labelled": "Copy the dataset, with the labels as a column.",
        },
        {"which frames become positive": "--beside --tag --convention --positive --horizon --failure --skip-unsolved --per-task"},
        code_1="an episode in the copy is damaged, though the labels are made",
    ),
    "evaluate": VerbHelp(
        ("--progress", "--episodes", "--against"),
        {
            "towels": "How good the progress file beside the dataset is.",
            "towels --progress sarm.parquet topreward.parquet": "Which of two models is better, with the difference.",
            "towels --annotations towels --against corrected.csv": "How far two annotations agree.",
        },
        code_1="an episode could not be compared",
    ),
    "audit": VerbHelp(
        ("--model", "--num-episodes", "--output-dir"),
        {
            "towels --model sarm": "Audit a model on twenty episodes.",
            "towels --model sarm --num-episodes 50": "Audit more episodes, for narrower intervals.",
            "towels --model sarm --controls frozen_first shuffled": "Run only the controls that a verdict needs.",
        },
        {"what the model is shown": "--controls"},
        code_1='the verdict is not "reward" (also if none can be said), a property fails, or an episode cannot be read',
    ),
    "compare": VerbHelp(
        ("--output-dir", "--arms", "--seeds"),
        {
            "": "The usual comparison: four ways to weigh, three seeds each.",
            "--arms uniform rabc-sarm --seeds 1 --trials 10": "Two arms and one seed, to see that it works.",
        },
        {
            "the demonstrations": "--tasks --shares --first-seed --episodes --annotated",
            "the policies": "--trials --steps --chunk-size --policy-loss",
        },
    ),
    "plot": VerbHelp(
        ("--episodes", "--progress", "--output-dir"),
        {
            "towels": "Figures of the first five episodes.",
            "towels --episodes 3,7 --output-dir figures": "Figures of two episodes, in a folder of your choice.",
            "towels --model sarm": "Without a progress file: the model is asked now.",
            "towels --format pdf --width 3.4": "Figures for one column of a paper.",
        },
        {"which curves are drawn": "--model --head-mode", "the figures": "--num-visualizations --width"},
        code_1="frames have no progress or an episode was left out, though the figures are made",
    ),
    "view": VerbHelp(
        ("--episodes", "--progress", "--export-html"),
        {
            "towels": "Open the page with all episodes, and every progress file beside the dataset.",
            "towels --audit audit_sarm --weights towels/weights.parquet": "The same, with the audit and the weights.",
            "towels --episodes 0-9 --export-html review.html": "One file to send to somebody, without a server.",
        },
        {"the server": "--host --port --open"},
        code_1="--export-html left something out, though the page is made",
    ),
    "serve": VerbHelp(
        ("--model", "--port", "--success-threshold"),
        {
            "--model sarm": "Serve your model on this machine.",
            "--model sarm --host 0.0.0.0": "Let robots of other machines ask; they need the token that is printed.",
            "--model sarm --success-threshold 0.8": "Count an attempt as successful from this progress on.",
        },
        {
            "when an attempt counts as successful": "--success-release --success-hold",
            "the reward": "--shaping --gamma",
            "the server": "--host --threads --max-sessions --max-frames --idle-s --max-body-mb --max-waiting-mb --video-fps",
        },
    ),
    "render": VerbHelp(
        ("--episodes", "--progress", "--output-dir"),
        {
            "towels": "Videos of the first five episodes.",
            "towels --episodes 3 --gif": "One episode, with a GIF for a web page.",
            "towels --weights towels/weights.parquet --output-dir videos": "With the weights as a strip.",
        },
        {"the videos": "--num-visualizations --gif --height"},
        code_1="frames have no progress or an episode was left out, though the videos are made",
    ),
    "copy": VerbHelp(
        ("--output-dir", "--progress", "--weights"),
        {
            "towels --output-dir towels_progress": "Copy the dataset, with its progress as a column.",
            "towels --output-dir towels_sound --without 3,7": "Leave out damaged episodes; of v2.1, milepost import does it.",
            "towels --output-dir towels_good --drop drop": "Leave out the episodes marked drop on the review page.",
            "towels --output-dir towels_short --trim-idle both": "Leave out the frames in which the robot does not move.",
        },
        {
            "which episodes and frames are copied": "--episodes --without --drop --keep --review-file --trim-idle --trim-threshold "
            "--trim-margin-s",
            "what is changed in the copy": "--episode-columns --restamp --even-damaged",
        },
        code_1="frames have no value in a column, or an episode in the copy is damaged, though the copy is made",
    ),
}

TITLES = {
    "what is read": "--datasets-file --episodes --revision --progress --weights --audit --review-file --annotations --against --task "
    "--head-mode --camera-key --image-key",
    "what is written": "--dry-run --output-path --output-dir --overwrite --format --vcodec --figure --size --export-html --push-to-hub "
    "--output-repo-id --json",
    "how it runs": "--device --precision --vlm-name --port --seed --workers --yes --help",
}
"""Title -> options of several verbs."""

MEANINGS = {
    "--annotation-mode": "Which stages it learns: one for the whole task (single_stage), the coarse or the fine ones, or both (dual).",
    "--device": "Where the networks run, such as cpu or cuda; auto takes a GPU if there is one.",
    "--first-seed": "The first of the seeds.",
    "--frames-per-second": "Frames that the model is shown for each second of an episode.",
    "--head-mode": "Which division into stages: sparse is the coarse one, dense the fine one.",
    "--json": "Print the numbers as JSON.",
    "--lr": "Learning rate; default: the preset's or the model's.",
    "--model-revision": "Commit, tag or branch of a Hub model.",
    "--n-obs-steps": "Frames in the window that the model sees; default: the model's.",
    "--num-visualizations": "How many episodes are drawn if --episodes names none.",
    "--output-dir": "Folder to write into.",
    "--output-repo-id": "Hub dataset to upload to.",
    "--revision": "Branch, tag or commit of a Hub dataset.",
    "--seed": "Seed of the random numbers.",
    "--seeds": "How often everything is repeated, each time with other random numbers.",
    "--steps": "Training steps; default: the preset's or the model's.",
    "--visualize-type": "Which stages are drawn.",
    "--workers": "Processes at once.",
}
"""Option -> what it means, for a verb whose own code says nothing about it."""
