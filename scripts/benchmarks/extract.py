#!/usr/bin/env python3
"""Benchmark ``faceswap extract`` on video against a plain loop, alternating in one run.

    scripts/benchmarks/extract.py [--clip FILE ...] [--rounds N] [--no-memory]

Both sides load their models again in every round. The last line is one JSON object.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Run both in turn and print the comparison."""
    # Detection processes import this file and need none of these, so import them here.
    from faceswap.facesets.extractor import extract
    from scripts.benchmarks.rival_video import Rival, compare, options, peak_memory

    chosen = options(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def fresh(name: str) -> Path:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
            return folder / name

        def ours(clip: Path) -> tuple[int, int]:
            report = extract(clip, fresh("ours"))
            return report.images, report.faces

        def memory(clip: Path) -> float:
            return peak_memory(["extract", str(clip), "-o", str(fresh("memory"))])

        def plain(clip: Path) -> int:
            return Rival().extract(clip, fresh("rival"))

        compare(chosen.clip, chosen.rounds, plain, ours, None if chosen.no_memory else memory)


if __name__ == "__main__":
    main()
