"""python -m crosswatch."""

from crosswatch.cli import main

main()
