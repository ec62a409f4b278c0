"""The fault harness: workers on three nodes of Apache Kafka, faults drawn from a seed, a check from the topics alone.

`python -m tests.integration.chaos --minutes 20 --seed 7`, or `make chaos ARGS=...`. `cluster` is the brokers, with a
door in front of each, `fleet` the workers, `workload` the events, `faults` what is done to them, `recorder` a reader
that keeps what compaction will take, `verdict` what follows from all that is there in the end, `left` what should not
be, and `mutations` the mistakes that the harness must notice.
"""
