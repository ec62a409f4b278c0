"""Times in milliseconds."""

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

FOREVER_MS = 2**63 - 1
"""A moment that does not come: the largest that 64 bits hold."""
