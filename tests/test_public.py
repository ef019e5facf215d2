"""All public names load, and --help imports nothing heavy."""

import subprocess
import sys

import pytest

import faceswap


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom faceswap.cli.main import cli\n"
        "for command in ([], ['extract'], ['train'], ['convert'], ['verify'], ['demo']):\n"
        "    assert CliRunner().invoke(cli, [*command, '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'dlib', 'cv2', 'av', 'numpy', 'PIL',"
        " 'c2pa', 'cryptography') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_all_public_names_load():
    assert sorted(faceswap.__all__) == faceswap.__all__
    for name in faceswap.__all__:
        assert getattr(faceswap, name) is not None
    assert faceswap.__version__
    with pytest.raises(AttributeError):
        faceswap.nothing  # noqa: B018
