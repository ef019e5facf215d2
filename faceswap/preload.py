"""Importing this loads dlib's weights: see :mod:`faceswap.workers`. Nothing else imports it."""

from contextlib import suppress

from faceswap import aligner
from faceswap.errors import InputError

with suppress(InputError):  # the process that is asked for a face will say so
    aligner.load()
