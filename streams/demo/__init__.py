"""A made-up shop with simulated shoppers, to watch the engine learn; not part of the engine."""
