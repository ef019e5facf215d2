"""Weights of pretrained networks. ``manifest.json`` records their origin and licence."""
