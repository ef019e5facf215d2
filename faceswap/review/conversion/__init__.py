"""The page of a clip: try settings on its frames, choose for people and shots, convert."""
