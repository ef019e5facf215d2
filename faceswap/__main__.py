"""Run the command line with ``python -m faceswap``."""

from faceswap.cli.main import main

if __name__ == "__main__":
    main()
