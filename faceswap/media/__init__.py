"""Read and write photos and video. This is the only package that imports PyAV and tifffile."""
