"""Load dlib's weights on import; only the fork server of :mod:`faceswap.faces.pool` does that."""

from contextlib import suppress

from faceswap.errors import InputError
from faceswap.faces import dlib_backend

with suppress(InputError):  # the worker that first needs a face reports it
    dlib_backend.load()
