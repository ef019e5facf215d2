"""Facesets: extract faces from photos and videos, describe them, tell people apart."""
