"""The attention model: network, training examples, training, export and verification, and the models we ship.

Only what trains, exports or compares imports PyTorch (extra ``train``); importing this package does not.
"""

from pathlib import Path

DEMO_MODEL = Path(__file__).parent / "artifacts" / "demo"
"""The model of the demo shop, which a worker takes unless told otherwise."""
