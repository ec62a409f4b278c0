"""Experiments on live traffic: what the control topic declares, what the referee makes of it, and its reports."""
