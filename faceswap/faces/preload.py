"""Load dlib's landmark model on import.

Only the fork server of :mod:`faceswap.faces.pool` imports this module.
"""

from contextlib import suppress

from faceswap.errors import InputError
from faceswap.faces import dlib_backend

with suppress(InputError):  # the first worker that needs the model reports it
    dlib_backend.landmark_model(None)
