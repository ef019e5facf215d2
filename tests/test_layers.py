"""Imports point down only, each foreign library has its home, and the public names are these."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import faceswap

PACKAGE = Path(faceswap.__file__).parent
LAYERS = [
    {"types", "errors", "__init__"},
    {"settings", "files"},
    {"config", "certificates", "consent"},
    {"geometry", "smoothing", "timecode", "planes", "photos", "credentials"},
    {"blaze", "media", "masks", "metrics", "signer", "label", "weights"},
    {"aligner", "augment", "model", "losses", "distributed"},
    {"parts", "encoders", "classic", "sound", "optimizers"},
    {"streams", "assembly"},
    {
        "workers",
        "preload",
        "facelog",
        "faceset",
        "compositor",
        "detail",
        "checkpoint",
        "writers",
        "charts",
    },
    {"recognition"},
    {"swapper", "sampler", "preparation", "tracker", "chooser"},
    {"monitor", "report", "cast"},
    {"footage"},
    {"extractor", "trainer", "converter", "evaluator", "inspector", "verifier"},
    {"demo", "progress", "printing"},
    {"doctor"},
    {"cli"},
    {"__main__"},
]
HOMES = {  # foreign library -> the modules that may import it
    "c2pa": {"credentials", "signer"},
    "cryptography": {"certificates"},
    "platformdirs": {"certificates"},
    "av": {"media", "writers", "planes", "encoders", "assembly", "sound", "streams"},
    "dlib": {"aligner", "weights"},
    "tifffile": {"photos"},
    "safetensors": {"model"},
    "click": {"cli", "progress", "printing"},
    "tqdm": {"progress"},
    "skimage": {"demo", "evaluator", "metrics"},
    "matplotlib": {"charts", "demo", "label"},
    "PIL": {"photos", "media", "faceset", "label"},
    "torchvision": {"faceset", "monitor"},
    "torch": {
        "augment",
        "model",
        "classic",
        "losses",
        "optimizers",
        "faceset",
        "checkpoint",
        "trainer",
        "converter",
        "preparation",
        "swapper",
        "evaluator",
        "distributed",
        "sampler",
        "monitor",
        "doctor",
    },
}


def imports_of(path):
    """Modules that a file imports anywhere but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "faceswap":
                yield from (f"faceswap.{alias.name}" for alias in node.names)
            else:
                yield node.module


MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def test_every_module_has_a_layer():
    assert set(MODULES) == set().union(*LAYERS)
    assert not [p for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    for name in imports_of(PACKAGE / f"{module}.py"):
        top, _, inner = name.partition(".")
        if top == "faceswap" and inner in rank:
            assert rank[inner] < rank[module], f"{module} imports {inner}"


@pytest.mark.parametrize("library", HOMES)
def test_a_foreign_library_stays_at_home(library):
    users = {
        module
        for module in MODULES
        for name in imports_of(PACKAGE / f"{module}.py")
        if name.split(".")[0] == library
    }
    assert users == HOMES[library]


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom faceswap.cli import cli\n"
        "for command in ([], ['extract'], ['train'], ['convert'], ['verify'], ['demo']):\n"
        "    assert CliRunner().invoke(cli, [*command, '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'torchvision', 'dlib', 'cv2', 'av', 'numpy.linalg', 'PIL',"
        " 'c2pa', 'cryptography') if m in sys.modules and m != 'numpy.linalg'])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_public_names_all_load():
    assert sorted(faceswap.__all__) == faceswap.__all__
    for name in faceswap.__all__:
        assert getattr(faceswap, name) is not None
    assert faceswap.__version__
    with pytest.raises(AttributeError):
        faceswap.nothing  # noqa: B018


def test_files_and_functions_stay_short():
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path.name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
                assert length <= 55, f"{path.name}: {node.name} has {length} lines"
