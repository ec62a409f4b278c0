"""Worlds whose truth is known, to hold the engine's own figures against."""
