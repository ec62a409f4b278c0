"""The attention model: network, training examples, training, export and verification, and the models we ship.

Only modules that train, export or compare import PyTorch (extra ``train``); importing this package does not.
"""

from pathlib import Path

DEMO_MODEL = Path(__file__).parent / "artifacts" / "demo"
"""The model of the demo shop, a worker's default."""
