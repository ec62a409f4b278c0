"""A lane and what belongs to it: queues, tokens, state from changelog and snapshots, click layer, ledger, effects."""
