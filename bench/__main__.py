"""`python -m bench`: against Orthanc; `python -m bench index`: the index alone, at scale."""

import sys

# The client processes import this module too, and are to stay small.
if __name__ == "__main__":
    if sys.argv[1:2] == ["index"]:
        del sys.argv[1]
        from bench.index.command import main
    else:
        from bench.command import main

    main()
