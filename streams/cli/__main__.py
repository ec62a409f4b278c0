"""``python -m streams.cli`` is ``salience``."""

from streams.cli import main

main()
