"""`python -m bfr_command` is the `bfr` command."""

from bfr_command.main import main

main()
