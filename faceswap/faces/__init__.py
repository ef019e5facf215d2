"""Detect faces, place landmarks, measure pose and expression. Only this package imports dlib."""
