"""The page that compares two models, or two settings, on the same frames and held-out faces."""
