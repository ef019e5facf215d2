"""Read and write photos and video. The only package that imports PyAV and tifffile."""
