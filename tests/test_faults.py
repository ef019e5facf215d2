"""What scripts/faults does at length, briefly: kills, a vanished folder, a clock running back."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="kills groups of processes as Linux does")
def test_nothing_is_lost():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "faults", "--kills", "2", "--stages", "extract",
         "--only", "kill", "blocked", "output removed", "clock back"],
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
    )  # fmt: skip

    lines = [line.split(None, 3) for line in done.stdout.splitlines()[1:]]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[-1].endswith("nothing") for line in lines] == [True] * 4, done.stdout
