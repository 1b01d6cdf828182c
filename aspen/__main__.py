"""`python -m aspen` is the `aspen` command."""

from aspen.cli import main

main()
