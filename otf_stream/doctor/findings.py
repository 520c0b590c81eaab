"""What a check came to: its grade, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]
"""How grave: a *problem* keeps the service, or the microscope's end of it, from working; a *warning* does not."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Parameters
    ----------
    check
        What was looked at.
    level
        How grave it is.
    found
        In words, with value and limit.
    remedy
        What to do; empty where there is nothing to do.
    figures
        What was measured, for scripts; units are in the names.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitting:
    """The largest stack of so many planes that is in time; sides are 0 where none is.

    Parameters
    ----------
    planes
        Of the stack.
    learnt_px
        Side with which there is time to learn from it and to restore it with every XZ and YZ slice.
    restoring_s, steps
        What restoring that takes, with the margin, and the training steps that there is time for.
    interpolated_px
        Side with which it can still be interpolated in time.
    """

    planes: int
    learnt_px: int
    restoring_s: float
    steps: int
    interpolated_px: int


@dataclass(frozen=True)
class Report:
    """What all checks came to.

    Parameters
    ----------
    role
        Of the machine: that of the ``service``, or of a ``microscope``.
    findings
        In the order in which they were looked at.
    verdict
        What it comes to, in plain words.
    fitting
        The largest stacks that are in time, where that was measured.
    """

    role: Literal["service", "microscope"]
    findings: Sequence[Finding]
    verdict: str
    fitting: Sequence[Fitting] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing keeps it from working."""
        return all(finding.level != "problem" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types."""
        findings = [asdict(finding) for finding in self.findings]
        told = {"role": self.role, "ok": self.ok, "verdict": self.verdict, "findings": findings}
        return told | ({"largest": [asdict(stack) for stack in self.fitting]} if self.fitting else {})
