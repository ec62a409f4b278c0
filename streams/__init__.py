"""The imperative shell: topics, lanes, publishing, the command line. What is decided is decided in `scoring`."""

import os

# onnxruntime reports usage to its maker unless told not to before it is first imported; a shop's engine reports to
# nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
