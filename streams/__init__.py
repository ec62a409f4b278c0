"""The imperative shell: topics, lanes, publishing, the command line. All decisions are made in `scoring`."""

import os

# onnxruntime sends usage reports to its maker unless this is set before its first import; a shop's engine reports to
# nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
