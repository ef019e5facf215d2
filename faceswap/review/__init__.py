"""See, choose and correct faces in a browser, on one's own machine; needs ``faceswap[review]``."""
