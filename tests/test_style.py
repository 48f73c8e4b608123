"""The rules that hold for all of the package: its interface, its imports, its size."""

import ast
import importlib
import inspect
import itertools
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "jaxsr").rglob("*.py"))

# Lowest first: a file imports only from the floors below its own or from above it on its floor.
FLOORS = (
    ("errors", "streams", "options", "files", "chunks", "tracing", "decoding", "images"),
    ("resample", "losses", "fourier"),
    ("storage", "quiet", "checkpoints"),
    ("winograd", "im2col", "convolution", "strips", "layers"),
    ("operators", "metrics", "protocols", "models.skip_unet"),
    (
        "models.luma",
        "models.lapsrn",
        "models.srcnn",
        "models.fsrcnn",
        "models.vdsr",
        "models.drcn",
        "models",
    ),
    (
        "datasets",
        "datasets.folders",
        "datasets.patches",
        "datasets.bsds300_archive",
        "datasets.bsds300_builder",
        "datasets.bsds300",
    ),
    ("weights", "pretrained", "training", "upscaling"),
    (
        "tv",
        "dip.config",
        "dip.stopping",
        "dip.optimiser",
        "dip.solver",
        "dip.resuming",
        "dip.programs",
        "dip.fitting",
        "dip",
        "reports",
        "figures",
        "plots",
        "diagrams",
    ),
    ("page.tables", "page.document", "page"),
)
ORDER = [name for floor in FLOORS for name in floor]

# Arguments with defaults that read better by position.
BY_POSITION = {
    ("resample.cubic", "a"),  # the kernel's one number, as in the formula
    ("resample.imresize", "scale"),  # as in MATLAB
    ("convolution.conv", "stride"),  # `custom_vjp` takes its arguments by position
    ("dip.solver.step", "reference"),  # data, not an option: it may be traced
    ("dip.solver.run", "reference"),
}


def module_name(path):
    parts = path.relative_to(ROOT / "jaxsr").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def public_functions():
    """(name, function) of all that the package offers: functions, classes and their methods."""
    found = {}
    for path in FILES:
        name = module_name(path)
        module = importlib.import_module(f"jaxsr.{name}".rstrip("."))
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            # What `jax.jit` and the like make of a function still has its docstring and signature.
            if inspect.isclass(value) or callable(value):
                found[f"{name}.{key}"] = value
            if inspect.isclass(value):
                methods = inspect.getmembers(value, inspect.isfunction)
                own = [(k, f) for k, f in methods if f.__qualname__ == f"{value.__name__}.{k}"]
                written = [(k, f) for k, f in own if f.__module__ == module.__name__]
                found |= {f"{name}.{key}.{k}": f for k, f in written if not k.startswith("_")}
    return found


PUBLIC = public_functions()


def parameters(function):
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def functions():
    return [(name, f) for name, f in PUBLIC.items() if not inspect.isclass(f)]


def test_the_search_finds_the_interface():
    expected = {
        "dip.solver.run",
        "dip.fitting.fit",
        "convolution.conv",
        "losses.mse",
        "images.read",
    }
    expected |= {"operators.downsample", "checkpoints.Checkpoints.save", "resample.pillow_matrix"}
    assert expected <= set(PUBLIC)


def test_everything_public_is_documented():
    assert [name for name, f in PUBLIC.items() if not inspect.getdoc(f)] == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_is_documented(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sections_of_docstrings_are_indented_by_two(path):
    lines = path.read_text().splitlines()
    for head, first in itertools.pairwise(lines):
        if re.fullmatch(r" *(Args|Returns|Raises|Attributes)( \(.*\))?:", head):
            indent = len(head) - len(head.lstrip()) + 2
            assert len(first) - len(first.lstrip()) == indent, first


def test_no_command_is_another_files_library():
    files = {path.stem: path.read_text() for path in (ROOT / "experiments").glob("*.py")}
    commands = {name for name, text in files.items() if '__name__ == "__main__"' in text}
    assert {"dip", "table1"} <= commands
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "experiments":
                assert not commands & {alias.name for alias in node.names}, name
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").removeprefix("experiments.") not in commands, name


def test_the_key_comes_first():
    for name, f in functions():
        names = [p.name for p in parameters(f)]
        assert "key" not in names[1:], name


def test_options_are_keyword_only():
    positional = {
        (name, p.name)
        for name, f in functions()
        for p in parameters(f)
        if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY
    }
    assert positional == BY_POSITION


def imported(path):
    """The package's own modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in deeper if name.removeprefix("jaxsr.") in ORDER]
            found |= set(known or [node.module])
    return found


def test_the_order_names_every_module():
    assert sorted(ORDER) == sorted(filter(None, map(module_name, FILES)))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path):
    name = module_name(path)
    below = ORDER[: ORDER.index(name)] if name else []
    for module in imported(path):
        top, _, rest = module.partition(".")
        assert top not in ("experiments", "benchmarks", "tests"), f"{name} imports {module}"
        if top == "jaxsr" and rest:
            assert rest in below, f"{name} imports {rest}, which is not below it"


HEAVY = ("matplotlib", "tensorflow_datasets", "tensorflow", "torch")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import jaxsr", (*HEAVY, "skimage")),
        ("from jaxsr import dip", (*HEAVY, "skimage")),
        ("import experiments.dip", HEAVY),
    ],
)
def test_imports_are_light(statement, heavy):
    program = f"{statement}; import sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []


@pytest.mark.parametrize("folder", ["jaxsr", "experiments", "benchmarks"])
def test_files_are_short(folder):
    lengths = {p: len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert {p: n for p, n in lengths.items() if n > 250} == {}
