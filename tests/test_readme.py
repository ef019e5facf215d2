"""What the pages promise is what the program does."""

import re
import shlex
from pathlib import Path

import click
import pytest

from faceswap import errors
from faceswap.cli import main, output

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands():
    """Every `faceswap ...` line in the README's code blocks, without its comment."""
    blocks = re.findall(r"```\n(.*?)```", README, re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("faceswap ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_readme_parses(line):
    _, name, *args = shlex.split(line)

    context = main.cli.commands[name].make_context(name, args)

    assert context.params


def test_the_three_commands_are_there():
    assert {"extract", "train", "convert"} <= {line.split()[1] for line in commands()}


def test_every_option_in_the_readme_exists():
    known = {
        option
        for command in main.cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    mentioned = set(re.findall(r"`(--[a-z-]+)", README)) - {"--help"}

    assert len(mentioned) > 10
    assert mentioned <= known


def test_every_exit_code_is_documented():
    kinds = [errors.FaceswapError, *all_below(errors.FaceswapError)]
    codes = {kind.exit_code for kind in kinds} | {0, 2, output.INTERRUPTED}

    table = re.search(r"(?s)\| exit code \|.*?\n\n", README)[0]
    assert {int(code) for code in re.findall(r"\| (\d+) \|", table)} == codes
    listed = re.search(r"(?s)0 done.*?interrupted", main.cli.help)[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", listed)} == codes


def all_below(kind):
    for child in kind.__subclasses__():
        yield child
        yield from all_below(child)


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


def test_scripts_named_in_the_pages_exist():
    text = "".join(page.read_text() for page in PAGES)

    names = set(re.findall(r"`((?:scripts|tests/stress)/[\w./-]+)", text))
    assert "scripts/test" in names
    for name in names:
        assert (ROOT / name).exists(), name


def test_every_script_is_named_in_a_page():
    text = "".join(page.read_text() for page in PAGES)

    for script in [*(ROOT / "scripts").rglob("*"), *(ROOT / "tests" / "stress").glob("f*.py")]:
        if script.is_file() and "__pycache__" not in script.parts:
            assert re.search(rf"\b{re.escape(script.stem)}\b", text), script


def test_the_formats_pages_name_every_key(faceset_folders, tmp_path):
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
