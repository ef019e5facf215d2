"""Face detection, tracking, recognition and facesets. Only this package imports dlib."""
