"""Experiments on live traffic: the control topic declares them, the referee judges them and publishes reports."""
