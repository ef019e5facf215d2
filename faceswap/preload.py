"""Importing this loads dlib's weights: see :mod:`faceswap.workers`. Nothing else imports it."""

from faceswap import aligner

aligner.load()
