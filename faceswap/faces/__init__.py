"""Detect faces, track them, tell people apart and store aligned crops. The only home of dlib."""
