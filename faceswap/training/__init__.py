"""Two facesets become a model."""
