"""Measure how well a model swaps faces that it has not seen."""
