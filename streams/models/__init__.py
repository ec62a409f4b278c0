"""Models on the topics: pushed, tried, given roles, switched between two slices, and reported on."""
