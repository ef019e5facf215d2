"""Run the command line as a user does, and check what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


def checked(command, text):
    """Parse the single JSON object in ``text`` and validate it with the schema of its command."""
    found = json.loads(text)
    schema = json.loads((SCHEMAS / f"{command}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema, jsonschema.Draft202012Validator)
    return found


def faceswap(*args, cwd, code=0):
    """Run the command line as a user would, check its exit code and return the process."""
    done = subprocess.run(
        [sys.executable, "-m", "faceswap", *map(str, args)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def one_line_error(done):
    """Return the error line; there must be exactly one and no traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("faceswap: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    return errors[0]
