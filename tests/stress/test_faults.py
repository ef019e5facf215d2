"""Short runs of faults.py: kills, full and read-only disks, deleted outputs, changed inputs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {  # other tests kill trainings and conversions
    "extract": (
        "kill:extract", "blocked:extract", "read-only:extract", "clock back:extract",
        "disk full:extract", "output removed:extract", "input changed:extract",
    ),
    "one file": (
        "disk full:train", "disk full:convert", "output removed:convert", "input changed:train",
        "input changed:convert",
    ),
    "sequence": ("kill:sequence", "disk full:sequence", "input changed:sequence"),
    "several": ("kill:several", "disk full:several", "input changed:several"),
}  # fmt: skip


@pytest.mark.stress
@pytest.mark.skipif(sys.platform != "linux", reason="kills process groups and mounts tmpfs")
@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_no_finished_work_is_lost(faults):
    script = ROOT / "tests" / "stress" / "faults.py"
    command = [sys.executable, script, "--kills", "2", "--frames", "130"]
    done = subprocess.run(
        [*command, "--steps", "4", "--only", *faults], capture_output=True, text=True,
        timeout=1800, check=False, cwd=ROOT,
    )  # fmt: skip

    lines = done.stdout.splitlines()[1:]
    assert done.returncode == 0, done.stdout + done.stderr
    allowed = ("  nothing", "  skipped: not permitted")  # mounting needs root
    assert [line.endswith(allowed) for line in lines] == [True] * len(faults), done.stdout
