#!/usr/bin/env python3
"""Benchmark ``faceswap convert`` against a plain loop, alternating in one run.

    scripts/benchmarks/convert.py [--clip FILE ...] [--rounds N] [--no-memory]

Our side does all the work of the command with the CPU's default model, including sound and H.264.
Both sides load their models again in every round. The last line is one JSON object.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Compare with an untrained model, which is as fast as a trained one."""
    # Detection processes import this file and need none of these, so import them here.
    from faceswap.models import autoencoder, modelfile
    from faceswap.models.architectures import PRESETS
    from faceswap.swapping.converter import convert
    from scripts.benchmarks.rival_video import Rival, compare, options, peak_memory

    chosen = options(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trained = modelfile.TrainedModel(
            autoencoder.build(PRESETS["small"]), ("a", "b"), (0, 0, 0), 0
        )
        modelfile.save(folder / "m" / modelfile.MODEL_FILE, trained)

        def ours(clip: Path) -> tuple[int, int]:
            report = convert(clip, folder / "ours.mp4", folder / "m")
            return report.frames, report.faces

        def memory(clip: Path) -> float:
            return peak_memory(
                ["convert", str(clip), "-o", str(folder / "m.mp4"), "--model", str(folder / "m")]
            )

        def plain(clip: Path) -> int:
            return Rival().convert(clip, folder)

        compare(chosen.clip, chosen.rounds, plain, ours, None if chosen.no_memory else memory)


if __name__ == "__main__":
    main()
