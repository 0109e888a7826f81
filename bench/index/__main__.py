"""Run `python -m bench.index`."""

from bench.index.command import main

if __name__ == "__main__":
    main()
