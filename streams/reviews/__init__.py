"""Reviews as they come: the reader that learns how ads and brands are reviewed, what it keeps, and its metrics."""

REVIEWS_ID = "review-reader"
"""Transactional id: a reader that starts fences the one before."""
