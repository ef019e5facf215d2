#!/usr/bin/env python3
"""Benchmark ``faceswap convert`` against a plain loop, alternating in one run.

    scripts/benchmarks/convert.py [--clip FILE ...] [--rounds N] [--no-memory]

Our side does all the work of the command with the CPU's default model, its refiner and a photo that
guides it, including sound and H.264.
Both sides load their models again in every round. The last line is one JSON object.
"""

import os
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    """Compare with an untrained model, which is as fast as a trained one."""
    # Detection processes import this file and need none of these, so import them here.
    import numpy as np

    from faceswap.cli.demo import public_photos
    from faceswap.config import ConvertConfig
    from faceswap.crops.guidance import to_view
    from faceswap.faces.detection import detect_hog
    from faceswap.faces.geometry import align_face, transform
    from faceswap.media.frame import Frame
    from faceswap.models import autoencoder, exemplars, modelfile
    from faceswap.models.architectures import PRESETS
    from faceswap.models.refiner import refiner_for
    from faceswap.swapping.converter import convert
    from scripts.benchmarks.rival_video import Rival, compare, options, peak_memory

    chosen = options(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        preset = PRESETS["small"]
        photo = public_photos()["hopper"]
        (face,) = detect_hog(photo, 0.2)
        aligned = align_face(Frame(photo, 0, Fraction(0), Path()), face, 256, preset.coverage)
        inside = to_view(transform(face.landmarks, aligned.matrix), 256, preset.view)
        unknown = np.full((2, 2), np.nan, np.float32)
        guide = exemplars.Exemplars(
            [aligned.image], inside[None], exemplars.identity_map(), unknown
        )
        trained = modelfile.TrainedModel(
            autoencoder.build(preset), ("a", "b"), (0, 0, 0), 0, exemplars={"b": guide},
            refiners={"a": refiner_for(preset).eval(), "b": refiner_for(preset).eval()},
        )  # fmt: skip
        modelfile.save(folder / "m" / modelfile.MODEL_FILE, trained)

        def ours(clip: Path) -> tuple[int, int]:
            settings = ConvertConfig(overwrite=True)
            report = convert(clip, folder / "ours.mp4", folder / "m", settings)
            return report.frames, report.faces

        def memory(clip: Path) -> float:
            return peak_memory(
                [
                    "convert",
                    str(clip),
                    "-o",
                    str(folder / "m.mp4"),
                    "--model",
                    str(folder / "m"),
                    "--overwrite",
                ]
            )

        def plain(clip: Path) -> int:
            return Rival().convert(clip, folder)

        compare(chosen.clip, chosen.rounds, plain, ours, None if chosen.no_memory else memory)


if __name__ == "__main__":
    main()
