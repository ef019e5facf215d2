#!/usr/bin/env python3
"""Time ``faceswap extract`` on video against a plain loop, alternating in one run.

    scripts/benchmarks/extract.py [--clip FILE ...] [--rounds N] [--no-memory]

The last line is one JSON object. Both load their models anew every time.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Compare."""
    # here, for the processes that look for faces import this file, and need none of it
    from faceswap.faces.extractor import extract
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
