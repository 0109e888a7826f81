"""`python -m bench`."""

# The client processes import this module too, and are to stay small.
if __name__ == "__main__":
    from bench.command import main

    main()
