"""Pages in a browser on the own machine: faces, trainings, conversions; ``faceswap[review]``."""
