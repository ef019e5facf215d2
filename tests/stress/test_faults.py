"""What faults.py does at length, briefly: kills, full and read-only disks, what vanishes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = (  # trainings and conversions are killed in tests of their own
    "kill:extract", "blocked:extract", "read-only:extract", "clock back:extract", "disk full",
    "output removed:extract", "output removed:convert", "input changed",
)  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="kills groups of processes as Linux does")
def test_nothing_is_lost():
    script = ROOT / "tests" / "stress" / "faults.py"
    command = [sys.executable, script, "--kills", "2", "--frames", "130"]
    done = subprocess.run(
        [*command, "--steps", "4", "--only", *FAULTS], capture_output=True, text=True,
        timeout=500, check=False, cwd=ROOT,
    )  # fmt: skip

    lines = done.stdout.splitlines()[1:]
    assert done.returncode == 0, done.stdout + done.stderr
    allowed = ("  nothing", "  skipped: not permitted")  # mounting needs rights
    assert [line.endswith(allowed) for line in lines] == [True] * 12, done.stdout
