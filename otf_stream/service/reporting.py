"""Reports of restored stacks as the worker has them written: by a process of its own, that nothing waits for.

The process is started with the first stack that has been restored, and again if it has died. That a report cannot be
written, or asked for, stops nothing: `otf-stream report` writes it at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from otf_stream.acquisition import StackIndex
from otf_stream.config import ReportChoice

_PATIENCE = 3.0  # seconds for the report that is being written when the worker ends


class Reporter:
    """Has reports written.

    Parameters
    ----------
    which
        Of each stack, of the first and the latest time point of each channel, or of none.
    """

    def __init__(self, which: ReportChoice) -> None:
        self._which = which
        self._process: subprocess.Popen[bytes] | None = None

    def restored(self, store: Path, stack: StackIndex) -> None:
        """Tell of a stack that has been restored; returns at once, whatever happens."""
        if self._which == "none":
            return
        with suppress(OSError):
            process = self._running()
            if process.stdin is not None:
                process.stdin.write(json.dumps({"store": str(store.resolve()), "stack": stack}).encode() + b"\n")

    def close(self) -> None:
        """End the process, after the report that it is at."""
        if self._process is None:
            return
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            # One thread, and of the priority that is left.
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "svg"}
            command = [sys.executable, "-m", "otf_stream.report", self._which]
            self._process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, env=environment)  # noqa: S603
        return self._process
