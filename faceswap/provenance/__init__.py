"""Provenance: who made a file, from what, and with whose consent.

Only this package imports c2pa and cryptography.
"""
