"""A short run of faults.py: kills, full and read-only disks, deleted outputs, changed inputs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = (  # other tests kill trainings and conversions
    "kill:extract", "blocked:extract", "read-only:extract", "clock back:extract", "disk full",
    "output removed:extract", "output removed:convert", "input changed", "kill:sequence",
    "kill:several",
)  # fmt: skip


@pytest.mark.stress
@pytest.mark.skipif(sys.platform != "linux", reason="kills process groups and mounts tmpfs")
def test_no_finished_work_is_lost():
    script = ROOT / "tests" / "stress" / "faults.py"
    command = [sys.executable, script, "--kills", "2", "--frames", "130"]
    done = subprocess.run(
        [*command, "--steps", "4", "--only", *FAULTS], capture_output=True, text=True,
        timeout=1800, check=False, cwd=ROOT,
    )  # fmt: skip

    lines = done.stdout.splitlines()[1:]
    assert done.returncode == 0, done.stdout + done.stderr
    allowed = ("  nothing", "  skipped: not permitted")  # mounting needs root
    assert [line.endswith(allowed) for line in lines] == [True] * 18, done.stdout
