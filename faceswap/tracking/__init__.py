"""Follow faces through a video, and select those of one person."""
