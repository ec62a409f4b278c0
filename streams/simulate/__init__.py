"""Simulated worlds whose truth is known, to check the engine's own figures."""
