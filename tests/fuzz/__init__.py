"""Hostile bytes against everything that reads bytes. ``make fuzz ARGS="--target all --runs 100000"``."""
