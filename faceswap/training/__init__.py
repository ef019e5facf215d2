"""Train a model on two facesets."""
