"""Networks and the files that hold them. Knows nothing of faces or video."""
