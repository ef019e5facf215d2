"""Weights of pretrained networks. ``manifest.json`` tells the origin and licence of each."""
