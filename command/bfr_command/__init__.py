"""The `bfr` command: puts core and rims together and starts them."""
