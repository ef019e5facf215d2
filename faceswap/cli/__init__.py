"""The command line: options, progress, and results as text or JSON."""
