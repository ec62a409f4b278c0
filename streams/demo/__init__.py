"""A made-up shop with simulated shoppers, to see the engine learn; no part of the engine."""
