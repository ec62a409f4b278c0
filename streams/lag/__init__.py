"""Lag, always measured from outside: the groups' committed offsets against the log ends.

`arithmetic`, `board` and `roll` are pure; `poller` asks the broker once, `monitor` again and again; `exporter` and
`serve` tell Prometheus and browsers; `watch` waits for lag 0.
"""
