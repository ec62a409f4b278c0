"""Compacted topics that every worker reads whole and follows: catalogue, campaigns, click layers, tones."""
