"""Networks and model files. Nothing here depends on faces or video."""
