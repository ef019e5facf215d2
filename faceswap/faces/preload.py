"""Load dlib's weights on import; only the fork server of :mod:`faceswap.faces.pool` does so."""

from contextlib import suppress

from faceswap.errors import InputError
from faceswap.faces import dlib_backend

with suppress(InputError):  # the first worker that needs the weights reports it
    dlib_backend.load()
