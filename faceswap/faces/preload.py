"""Importing this loads dlib's weights: see :mod:`faceswap.workers`. Nothing else imports it."""

from contextlib import suppress

from faceswap.errors import InputError
from faceswap.faces import dlib_backend

with suppress(InputError):  # the process that is asked for a face will say so
    dlib_backend.load()
