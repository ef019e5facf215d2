"""The documentation matches the program."""

import ast
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import click
import pytest

from faceswap import config, errors
from faceswap.cli import main, output

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(ROOT / name / "README.md" for name in ("data", "models")),
    *sorted(DOCS.rglob("*.md")),
]


def code_blocks(page, *languages):
    """Every code block of a page in one of the languages; "" is a block without a language."""
    blocks = re.findall(r"(?ms)^( *)```(\w*)\n(.*?)^\1```$", page.read_text())
    return [text for _, language, text in blocks if language in languages]


def commands(page):
    """Every `faceswap ...` line in the code blocks of a page, without its comment."""
    text = "\n".join(code_blocks(page, "", "bash")).replace("\\\n", " ")
    lines = [re.sub(r"^torchrun .* -m faceswap ", "faceswap ", line) for line in text.splitlines()]
    lines = [re.sub(r"\s#.*", "", line).strip() for line in lines]
    return sorted({line for line in lines if line.startswith("faceswap ")})


@pytest.mark.parametrize(
    ("page", "line"),
    [(page.relative_to(ROOT), line) for page in PAGES for line in commands(page)],
)
def test_every_command_in_the_pages_parses(page, line):
    if "--mask ellipse" in line:
        pytest.importorskip("faceswap_example", reason="scripts/setup-venv test installs it")
    _, name, *args = shlex.split(line)

    context = main.cli.commands[name].make_context(name, args)

    assert context.params


@pytest.mark.parametrize("page", [README, DOCS / "index.md", DOCS / "quickstart.md"])
def test_entry_pages_show_the_three_main_commands(page):
    assert {"extract", "train", "convert"} <= {line.split()[1] for line in commands(page)}


def test_every_command_is_shown_in_a_page():
    shown = {line.split()[1] for page in PAGES for line in commands(page)} | {"demo"}

    assert shown == set(main.cli.commands)


def all_options():
    """Every option of every command."""
    return {
        option
        for command in main.cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


# Options of other programs that the pages name
FOREIGN_OPTIONS = {"--help", "--version", "--torch-backend", "--gpus", "--strict"}


def test_every_option_in_the_pages_exists():
    mentioned = {
        option
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", page.read_text())
        if "scripts/" not in code
        for option in re.findall(r"(?:^|\s)(--[a-z-]+)", code)
    }

    assert len(mentioned) > 40
    assert mentioned - FOREIGN_OPTIONS <= all_options()


def test_every_option_is_explained_in_a_page():
    text = "".join(page.read_text() for page in PAGES)

    options = {option for option in all_options() if option.startswith("--")}
    assert {o for o in options if not re.search(rf"{o}(?![a-z-])", text)} <= {"--smooth"}


def test_every_exit_code_is_documented():
    below = all_subclasses(errors.FaceswapError)
    # Modules may refine an error for themselves; it keeps the exit code of its base class.
    kinds = [errors.FaceswapError, *(k for k in below if k.__module__ == errors.__name__)]
    codes = {kind.exit_code for kind in kinds} | {0, 2, output.INTERRUPTED}

    table = re.search(r"(?s)\| exit code \|.*?\n\n", (DOCS / "errors.md").read_text())[0]
    rows = [re.findall(r"[^|]+", row) for row in table.strip().splitlines()[2:]]
    assert {int(code) for code, *_ in rows} == codes
    for code, names, _ in rows:
        documented = set(re.findall(r"`(\w+)`", names))
        assert documented == {kind.__name__ for kind in kinds if kind.exit_code == int(code)}
    listed = re.search(r"(?s)0 done.*?interrupted", main.cli.help)[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", listed)} == codes


def all_subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from all_subclasses(child)


def test_scripts_named_in_the_docs_exist():
    text = "".join(page.read_text() for page in PAGES)

    names = set(re.findall(r"`((?:scripts|tests/stress)/[\w./-]+)", text))
    assert "scripts/test" in names
    for name in names:
        assert (ROOT / name).exists(), name


def test_every_script_is_named_in_the_docs():
    text = "".join(page.read_text() for page in PAGES)

    for script in [*(ROOT / "scripts").rglob("*"), *(ROOT / "tests" / "stress").glob("f*.py")]:
        if script.is_file() and "__pycache__" not in script.parts:
            assert re.search(rf"\b{re.escape(script.stem)}\b", text), script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"(?s)<!--.*?-->", "", page.read_text())):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]

    listed = re.findall(r": ([\w/-]+\.md)$", navigation, re.M)
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_python_in_the_pages_is_valid():
    blocks = [block for page in PAGES for block in code_blocks(page, "python")]

    assert len(blocks) > 10
    for block in blocks:
        ast.parse(textwrap.dedent(block))


def test_plugins_page_quotes_the_example_package():
    package = DOCS / "example-plugin"
    source = (package / "faceswap_example" / "__init__.py").read_text()
    page = (DOCS / "plugins.md").read_text()

    for name in ("detect_center", "ellipse", "screen", "_measure"):
        block = next(b for b in code_blocks(DOCS / "plugins.md", "python") if f"def {name}" in b)
        assert block.strip() in source, name
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]
    for group in project["entry-points"]:
        assert f"`{group}`" in page


def test_plugins_page_lists_every_seam_with_its_built_ins():
    page = (DOCS / "plugins.md").read_text()

    seams = [value for name, value in vars(config).items() if re.fullmatch(r"[A-Z]+_SEAM", name)]
    assert len(seams) == 7
    for seam in seams:
        built_ins = ", ".join(f"`{name}`" for name in seam.built_in)
        row = f"| `{seam.group}` | {built_ins} |"
        assert row in page, f"the table in docs/plugins.md needs: {row}"


def test_architecture_page_names_every_import_between_packages():
    page = (DOCS / "architecture.md").read_text()
    rows = re.search(r"(?s)\| package \| imports \|\n\|---\|---\|\n(.*?)\n\n", page)[1]
    documented = {
        names[0]: set(names[1:])
        for names in (re.findall(r"`(\w+)`", row) for row in rows.splitlines())
    }

    packages = {path.parent.name for path in (ROOT / "faceswap").glob("*/__init__.py")}
    assert set(documented) == packages
    for package in packages:
        text = "".join(path.read_text() for path in (ROOT / "faceswap" / package).rglob("*.py"))
        imported = set(re.findall(r"from faceswap\.(\w+)|import faceswap\.(\w+)", text))
        names = {name for pair in imported for name in pair} & packages - {package}
        assert names == documented[package], package


def test_citation_has_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_format_pages_name_every_key(faceset_folders, tmp_path):
    import json

    from faceswap.config import TrainConfig
    from faceswap.models import modelfile
    from faceswap.training import trainer

    header, record = (
        json.loads(line)
        for line in (faceset_folders[0] / "faces.jsonl").read_text().splitlines()[:2]
    )
    data_page = (ROOT / "data" / "README.md").read_text()
    for key in {**header, **record}:
        assert f"`{key}`" in data_page, key

    settings = TrainConfig(model="small", steps=1, batch_size=2, device="cpu")
    trainer.train(*faceset_folders, tmp_path / "model", settings)
    models_page = (ROOT / "models" / "README.md").read_text()
    with modelfile.safe_open(tmp_path / "model" / modelfile.MODEL_FILE, framework="pt") as file:
        keys = set(file.metadata())
    for path in (tmp_path / "model").iterdir():
        keys.add("previews/step-000001000.png" if path.is_dir() else path.name)
    for key in keys:
        assert f"`{key}`" in models_page, key


def test_marking_names_tests_that_exist():
    """Each row of the comparison with the code of practice says which test shows it."""
    text = (DOCS / "marking.md").read_text()
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    rows = text.split("## Measures of the code", 1)[1].split("\n## ", 1)[0].splitlines()[3:]
    named = re.findall(r"`(test_\w+)`", text)

    assert len(rows) > 12
    assert all(re.search(r"`test_|`tests/|\| - \|$", row) for row in rows if row.startswith("|"))
    assert [name for name in named if f"def {name}(" not in sources] == []
    assert all((ROOT / path).is_file() for path in re.findall(r"`(tests/[\w/]+\.py)`", text))
