"""The structure of the code: wings in their order, no circles, complete maps; and the front door to public names."""

import ast
import dataclasses
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import alexnet_dali.model
import alexnet_dali.pipeline
import pytest
from alexnet_dali.pipeline.front_door import OldModule, old_name

ROOT = Path(__file__).parents[1]
LAYERS = ("pipeline", "model", "tools")
# Lowest first: a module imports only from its own line and from those above it.
ORDER = (
    (
        "pipeline/errors",
        "pipeline/files",
        "pipeline/csv_files",
        "pipeline/workers",
        "pipeline/versions",
        "pipeline/compiled",
        "pipeline/front_door",
    ),
    ("pipeline/plan",),
    ("pipeline/shards",),
    ("pipeline/sources",),
    ("pipeline/prepare",),
    ("pipeline/stream",),
    ("pipeline/__init__",),
    ("model/nets",),
    ("model/recipes",),
    ("model/training",),
    ("model/weights",),
    ("model/analysis",),
    ("model/__init__",),
    ("tools/__init__", "tools/console", "tools/process", "tools/output_guard", "tools/options"),
    ("tools",),
)
MOST_FILES = {  # any other folder has at most 16 with its map
    "pipeline/sources": 20,  # layouts will be added
    "pipeline/prepare": 18,  # with _area.c
    "pipeline/stream": 20,  # with _finish.c and _records.c
}
WINGS = sorted(
    str(path.parent.relative_to(ROOT))
    for layer in LAYERS
    for path in (ROOT / layer).rglob("__init__.py")
    if "__pycache__" not in path.parts
)
FRONT_DOORS = {"pipeline": alexnet_dali.pipeline, "model": alexnet_dali.model}
PUBLIC = [(layer, name) for layer, package in FRONT_DOORS.items() for name in package.__all__]


def modules() -> dict[str, ast.Module]:
    """The product's modules by path without suffix: `pipeline/plan/plan`."""
    files = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
    return {str(path.relative_to(ROOT).with_suffix("")): ast.parse(path.read_text()) for path in files}


def imported(name: str, tree: ast.Module, known: dict[str, ast.Module]) -> set[str]:
    """The product's modules that a module imports, anywhere in it; a package counts as its `__init__`."""
    package = name.split("/")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(package) + 1, f"{name}: import from outside the package"
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                path, above = "/".join([*base, alias.name]), "/".join(base)
                found.add(next(p for p in (path, f"{path}/__init__", above, f"{above}/__init__") if p in known))
        else:
            absolute = isinstance(node, ast.ImportFrom | ast.Import) and "alexnet_dali" in ast.unparse(node)
            assert not absolute, f"{name}: the product imports itself by relative names"
    return found


def line_of(name: str) -> int:
    """The number of a module's line in ORDER; the longest match counts."""
    fitting = [
        (len(entry), number)
        for number, line in enumerate(ORDER)
        for entry in line
        if name == entry or name.startswith(f"{entry}/")
    ]
    assert fitting, f"{name} is in no wing: give it a place in ORDER"
    return max(fitting)[1]


def test_no_module_imports_from_a_later_wing():
    known = modules()
    upward = [
        f"{name} -> {other}"
        for name, tree in known.items()
        for other in imported(name, tree, known)
        if line_of(other) > line_of(name) and not (other.endswith("/__init__") and name.startswith(other[:-8]))
    ]
    assert not upward


def test_no_circle_of_imports():
    known = modules()
    try:
        tuple(
            graphlib.TopologicalSorter({n: imported(n, tree, known) - {n} for n, tree in known.items()}).static_order()
        )
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("wing", WINGS)
def test_no_folder_is_crowded(wing):
    files = [path.name for path in (ROOT / wing).iterdir() if path.suffix in (".py", ".c")]
    assert len(files) <= MOST_FILES.get(wing, 16), f"{wing} has {len(files)} files: split it"


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_mapped(wing):
    """Its `__init__` names every module and folder of it in a docstring."""
    text = ast.get_docstring(ast.parse((ROOT / wing / "__init__.py").read_text())) or ""
    parts = [path for path in (ROOT / wing).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in parts]
    missing = [name for name in names if name not in ("__init__.py", "__main__.py") and name not in text]
    assert not missing, f"{wing}/__init__.py does not name {missing}"


def test_no_file_is_too_long():
    long = {name: len((ROOT / f"{name}.py").read_text().splitlines()) for name in modules()}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def test_pyproject_lists_every_package():
    listed = re.findall(r'^    "alexnet_dali\.([\w.]+)",$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert sorted(listed) == sorted(wing.replace("/", ".") for wing in WINGS)


@pytest.mark.parametrize("layer", FRONT_DOORS)
def test_type_checkers_see_the_same_names(layer):
    tree = ast.parse((ROOT / layer / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    table = {name: module for module, names in FRONT_DOORS[layer]._NAMES.items() for name in names.split()}
    assert seen == table and sorted(table) == FRONT_DOORS[layer].__all__


@pytest.mark.parametrize(
    "code",
    [
        "import alexnet_dali.pipeline, alexnet_dali.model",
        "from alexnet_dali.pipeline import find_photos, build_shards, verify_shards, measure_stats, Plan, StallMeter",
        "from alexnet_dali.model import recipe, Config, RECIPES",
        "import alexnet_dali.tools.train.cli",
    ],
)
def test_what_needs_no_torch_imports_none(code):
    code += "; import sys; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'nvidia')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["no_such_name", "stats"])
def test_what_is_not_offered_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=rf"'alexnet_dali\.pipeline' has no attribute '{name}'"):
        vars(alexnet_dali.pipeline)["__getattr__"](name)
    assert name not in dir(alexnet_dali.pipeline) and "TrainLoader" in dir(alexnet_dali.pipeline)


def callables(layer: str, name: str) -> list[tuple[str, typing.Any]]:
    """A public name and what its users call of it: a class with its public methods."""
    value = getattr(FRONT_DOORS[layer], name)
    own = {} if not inspect.isclass(value) else vars(value)
    return [(name, value), *((f"{name}.{m}", f) for m, f in own.items() if inspect.isfunction(f) and m[0] != "_")]


@pytest.mark.parametrize(("layer", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_every_public_name_is_documented(layer, name):
    """What each parameter is, shapes and types of arrays, what is returned and what is raised."""
    for called, value in callables(layer, name):
        if not callable(value):
            continue  # a table
        text = inspect.getdoc(value) or ""
        assert text and (not inspect.isclass(value) or text != inspect.getdoc(value.__mro__[1])), (
            f"{called}: no docstring"
        )
        if inspect.isclass(value) and issubclass(value, Exception):
            continue
        for parameter, annotation in parameters(value).items():
            assert re.search(rf"\b{parameter}\b", text), f"{called}: {parameter} is not described"
            if "ndarray" in annotation or "Tensor" in annotation:
                assert re.search(r"\([\w*+, /]*\)|[Ss]hape", text), f"{called}: {parameter}: no shape"
        if inspect.isfunction(value):
            returned = str(inspect.signature(value).return_annotation)
            assert "None" in returned[:7] or re.search(r"Returns?:?|Yields:|^The |^Whether", text), f"{called}: Returns"
            raises = re.search(r"^\s+raise ", inspect.getsource(value), re.M)
            assert not raises or "Raises:" in text, f"{called}: Raises"


def parameters(value: typing.Any) -> dict[str, str]:
    """Names and annotations of what a function, or a class's constructor, takes."""
    if dataclasses.is_dataclass(value):
        return {field.name: str(field.type) for field in dataclasses.fields(value) if not field.name.startswith("_")}
    function = vars(value).get("__init__") if inspect.isclass(value) else value
    if function is None:
        return {}
    given = inspect.signature(function).parameters
    return {name: str(p.annotation) for name, p in given.items() if name not in ("self", "cls") and name[0] != "_"}


OLD_NAMES = [
    ("pipeline.batches", "TrainLoader"),
    ("pipeline.batches", "TestLoader"),
    ("pipeline.dataset", "ShardDataset"),
    ("pipeline.loader", "train_stream"),
    ("pipeline.loader", "views_stream"),
    ("pipeline.loader", "Light"),
    ("pipeline.plan", "Plan"),
    ("pipeline.plan", "SLOW_ORDER"),
    ("pipeline.plan", "Augmentation"),
    ("pipeline.resized", "ResizedCrop"),
    ("pipeline.shardset", "open_shard_set"),
    ("pipeline.stall", "StallMeter"),
    ("pipeline.stats", "load"),
    ("pipeline.stats", "measure"),
    ("pipeline.stats", "save"),
    ("pipeline.stats", "lighting_offsets"),
    ("pipeline.loader", "MEANS"),
    ("model.checkpoint", "load"),
    ("model.checkpoint", "save"),
    ("model.checkpoint", "run_checkpoint"),
    ("model.checkpoint", "load_trained"),
    ("model.portable", "load_exported"),
    ("model.portable", "mean_window"),
    ("model.portable", "read"),
]


@pytest.mark.parametrize(("module", "name"), OLD_NAMES)
def test_the_paths_of_0_1_still_work(module, name):
    package, _, leaf = module.partition(".")
    code = f"from alexnet_dali.{module} import {name}"
    if leaf == "plan":  # a wing now, which warns once for each name
        vars(importlib.import_module("alexnet_dali.pipeline.plan")).pop(name, None)
    else:
        sys.modules.pop(f"alexnet_dali.{module}", None)
    with pytest.warns(DeprecationWarning, match=r"docs/migration\.md") as told:
        exec(compile(code, "a user's program", "exec"), found := {})
    assert {warning.filename for warning in told} == {"a user's program"}  # not a line of ours, nor of importlib
    new = {"TestLoader": "EvalLoader", "Light": "Lighting"} | {f: f"{f}_stats" for f in ("load", "measure", "save")}
    offered = getattr(FRONT_DOORS[package], new.get(name, name), found[name])
    assert found[name] is offered


def test_the_old_star_import_and_an_export_at_the_old_path(tmp_path, monkeypatch):
    sys.modules.pop("alexnet_dali.pipeline.loader", None)
    with pytest.warns(DeprecationWarning, match="has moved"):
        exec("from alexnet_dali.pipeline.loader import *", found := {})
    assert {"Light", "train_stream", "views_stream"} <= found.keys()
    sys.modules.pop("alexnet_dali.model.checkpoint", None)
    with pytest.warns(DeprecationWarning, match="has moved"):
        from alexnet_dali.model.checkpoint import load
    read = []
    monkeypatch.setattr("alexnet_dali.model.weights.safetensors_io.read", lambda path: read.append(path) or {})
    assert load(tmp_path / "model.safetensors") == {} and read == [tmp_path / "model.safetensors"]


def test_a_module_in_the_old_table_was_one_and_is_none():
    for layer, package in FRONT_DOORS.items():
        for name, entry in package._OLD.items():
            assert not (ROOT / layer / f"{name}.py").exists() and not (ROOT / layer / name).exists()
            for now in entry.now:
                importlib.import_module(f"alexnet_dali.{layer}.{now}")
            with pytest.raises(AttributeError, match="has no attribute 'never'"):
                old_name(f"alexnet_dali.{layer}", name, entry, "never")
            for new in entry.renamed.values():
                assert old_name(f"alexnet_dali.{layer}", name, OldModule(entry.now), new)


def test_docs_and_examples_use_the_front_door_alone():
    deep = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]:
        if path.name == "migration.md":
            continue  # shows the old paths beside the new
        for line in re.findall(r"^\s*(?:from|import) alexnet_dali\S*.*$", path.read_text(), re.M):
            if not re.match(r"\s*from alexnet_dali\.(pipeline|model) import ", line):
                deep.append(f"{path.name}: {line.strip()}")
    assert not deep


def test_importing_changes_no_global_of_the_host():
    """Not Pillow's limits, the warning filters, the locale, the signal handlers or torch's settings."""
    code = """
import signal, sys, warnings, torch
from PIL import Image, ImageFile
import alexnet_dali.pipeline, alexnet_dali.model
def state():
    return (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters), torch.get_num_threads(),
            torch.backends.cudnn.benchmark, torch.get_default_dtype(), [signal.getsignal(n) for n in (2, 15)])
before = state()
for package in (alexnet_dali.pipeline, alexnet_dali.model):
    for name in package.__all__:
        getattr(package, name)
after = state()
assert before == after, (before, after)
"""
    with warnings.catch_warnings():
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
