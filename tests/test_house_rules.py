"""What review would otherwise have to repeat: sizes of files, functions and signatures; no catch-all except; every file says what it is."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

from syntax_trees import nodes, parsed

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "src").rglob("*.py"))


@cache
def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_files_fit_in_a_head() -> None:
    assert not [path.name for path in FILES if len(path.read_text().splitlines()) > 450]


def test_functions_stay_under_sixty_lines() -> None:
    assert not [where for where, node in functions() if (node.end_lineno or 0) - node.lineno + 1 > 60]


def test_at_most_eight_parameters() -> None:
    def count(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        names = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        return len([name for name in names if name not in ("self", "cls")])

    assert not [where for where, node in functions() if count(node) > 8]


CATCH_ALL = {"models/foreign.py"}
"""Where code of other packages is called: whatever it raises is caught and raised again, as an error that names the package."""


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(each is None or (isinstance(each, ast.Name) and each.id in ("Exception", "BaseException")) for each in caught)


def test_no_catch_all_except() -> None:
    broad = [
        (path.relative_to(ROOT / "src" / "milepost").as_posix(), node)
        for path in FILES
        for node in nodes(path)
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert not [f"{name}:{node.lineno}" for name, node in broad if name not in CATCH_ALL or not isinstance(node.body[-1], ast.Raise)]


OTHERS_OWN = {
    "cli/entry.py": {"warnings"},  # Python's own hook for how a warning is printed
    "datasets/video.py": {"stream", "packet"},  # PyAV: codecs and packets are set up by their attributes, and by nothing else
    "figures/film/planes.py": {"frame", "stream", "stream.codec_context"},  # PyAV
    "sim/scene.py": {"self.model.vis.quality", "self._eye"},  # MuJoCo: cameras and quality are C structs
    "sim/world.py": {"self.env"},  # Meta-World is seeded by attributes that have no setter
    "testing/tiny.py": {"tokenizer"},  # tokenizers: the parts of a tokenizer are its attributes
    "vlm/loading.py": {"weight"},  # torch: a parameter's type is changed by its data
}
"""Objects of other libraries that are made ready by assigning to them: file -> what is assigned to."""


def assigned(node: ast.stmt) -> list[ast.expr]:
    """Returns what a statement assigns to, each target for itself."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
    return [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])]


def copies(function: ast.AST) -> set[str]:
    """Returns the names of copies that a method makes of its own object, which it may still change: nobody else has them."""
    made = [node for node in ast.walk(function) if isinstance(node, ast.Assign) and ast.unparse(node.value) == "copy.copy(self)"]
    return {target.id for node in made for target in node.targets if isinstance(target, ast.Name)}


def test_nobody_assigns_to_another_objects_attributes() -> None:
    wrong = []
    for path in FILES:
        name = path.relative_to(ROOT / "src" / "milepost").as_posix()
        own = {"self", "cls"} | copies(parsed(path)) | OTHERS_OWN.get(name, set())
        for node in (each for each in nodes(path) if isinstance(each, ast.stmt)):
            targets = [each for each in assigned(node) if isinstance(each, ast.Attribute)]
            wrong += [f"{name}:{node.lineno} {ast.unparse(each)}" for each in targets if ast.unparse(each.value) not in own]
    assert not wrong


def test_only_datasets_knows_where_lerobot_keeps_its_files() -> None:
    """No name of a file of meta/, and no template of a path, stands in code of another room. Docstrings and messages may name them."""
    layout = re.compile(r"meta/$|meta/[a-z_{}*/]+\.(json|jsonl|parquet)$|meta/episodes|chunk-\{|temporal_proportions_\{")
    wrong = []
    for path in FILES:
        name = path.relative_to(ROOT / "src" / "milepost").as_posix()
        words = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
        texts = [each for each in nodes(path) if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in words]
        wrong += [f"{name}:{each.lineno} {each.value}" for each in texts if not name.startswith("datasets/") and layout.match(each.value)]
    assert not wrong


def test_every_file_says_what_it_is() -> None:
    assert not [path.name for path in FILES if not ast.get_docstring(parsed(path))]


def test_no_machine_paths() -> None:
    places = ("/" + "work/", "/" + "root/", "/" + "home/")
    text = [p for pattern in ("src/**/*.py", "docs/**/*.md", "*.md", "benchmarks/*.py") for p in ROOT.glob(pattern)]
    assert not [path.name for path in text if any(place in path.read_text() for place in places)]


def test_no_two_test_files_have_one_name() -> None:
    """pytest collects neither of two modules of one name."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
