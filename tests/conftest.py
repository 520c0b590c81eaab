"""What holds for every test: none meets the keys of the user who runs it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Set before anything else is imported: some tests keep a copy of the environment for the programs that they start.
os.environ["OTF_STREAM_KEYS"] = str(Path(tempfile.gettempdir()) / f"otf_stream-no-keys-{os.getpid()}")
