"""The three answers that the page is built around: is every plane arriving, will the volume be in time, is it any good.

Each is a mood, a word, one large figure and what stands behind it, made from a snapshot by pure functions, so that they
can be tested without a browser and are made once however many browsers look.
"""

from __future__ import annotations

from dataclasses import dataclass

from otf_stream.config import method_name
from otf_stream.monitor.dashboard.words import Mood, clock, decision_told, gap_list, rate, span
from otf_stream.monitor.state import Listener, Session, Stack, Worker

_SILENT = 30.0  # seconds, from which on silence is an alarm, too


@dataclass(frozen=True)
class Answer:
    """An answer.

    Parameters
    ----------
    mood
        How it stands.
    word
        The answer itself.
    figure, unit
        The one figure that tells most, and what it counts.
    lines
        What stands behind it.
    """

    mood: Mood
    word: str
    figure: str
    unit: str
    lines: tuple[str, ...] = ()


def arriving(session: Session, listener: Listener | None) -> Answer:
    """Return whether every plane of a session is arriving."""
    figure, unit = f"{session.durable:,}".replace(",", " "), f"of {session.expected:,} planes on disk".replace(",", " ")
    lines = [rate(session.planes_per_s, session.bytes_per_s)]
    if session.gaps:
        lines.append("gaps: " + gap_list(session.gaps, session.acquisition))
    down = session.closed is None and (listener is None or not listener.current)
    mood: Mood
    if session.damaged:
        mood, word = "bad", f"No: {session.damaged} damaged"
    elif session.missing:
        mood, word = "bad", f"No: {session.missing} missing"
    elif session.durable >= session.expected > 0 and not session.acquisition.growing:
        mood, word = "good", "Yes, all are here"
    elif down:
        mood, word = "bad", "No: listener is down"
    elif listener and listener.holding and session.closed is None:
        mood, word = "bad", "No: held back, disk is full"
    elif session.closed is not None:
        mood, word = "good", "Yes, all that were sent"
    elif session.silent_s is not None and session.silent_s > _SILENT:
        mood, word = "watch", f"Silent for {span(session.silent_s)}"
    elif not session.durable:
        mood, word = "wait", "Waiting for the first"
    else:
        mood, word = "good", "Yes, so far"
    return Answer(mood, word, figure, unit, tuple(lines))


def in_time(stack: Stack | None, worker: Worker | None, *, paused: bool) -> Answer:
    """Return whether the volume of a stack will be there in time."""
    if stack is None:
        return Answer("wait", "Not begun", "–", "no plane of this stack yet, or it is long done")
    lines = _decided(stack, paused=paused)
    if stack.state == "failed":
        word = "Cancelled" if stack.reason == "cancelled" else "No volume"
        return Answer("bad", word, "–", stack.reason or "no reason is known", lines)
    if stack.state == "restored":
        return _restored(stack, lines)
    if stack.seconds_left is None:
        return Answer("wait", "Not known yet", "–", "the worker has not looked at it yet", lines)
    figure, unit = clock(stack.seconds_left), "left to the deadline"
    if stack.seconds_left < 0:
        return Answer("bad", "No: late", figure, "past the deadline", lines)
    if worker is not None and worker.starting:
        return Answer("wait", "Worker is starting", figure, unit, lines)
    if worker is None or not worker.current:
        return Answer("bad", "No: worker is down", figure, unit, lines)
    if stack.restoring_s is not None and stack.restoring_s > stack.seconds_left:
        return Answer("watch", "Tight", figure, unit, lines)
    return Answer("good", "Yes", figure, unit, lines)


def any_good(stack: Stack | None) -> Answer:
    """Return whether the volume of a stack is any good."""
    if stack is None or stack.state == "failed":
        return Answer("wait", "No volume", "–", "nothing to judge")
    lines = tuple(f"warning: {warning}" for warning in stack.warnings[:3])
    if stack.method:
        lines = (f"made by {method_name(stack.method)}", *lines)
    elif curves := [curve for curve in stack.training if curve.loss]:
        last = curves[-1]
        lines = (f"{last.stage}: loss {last.loss[-1]:.4g} after {last.steps[-1]} steps", *lines)
    if stack.state == "restored" and stack.method == "interpolate":
        return Answer("watch", "Interpolated only", "±0 dB", "the network had no part in it", lines)
    if stack.gain_db is None:
        if stack.state == "restored":
            return Answer("wait", "Not measured", "–", "no planes were held out", lines)
        return Answer("wait", "Not known yet", "–", "measured when learning ends", lines)
    sign = "+" if stack.gain_db >= 0 else "−"
    figure, unit = f"{sign}{abs(stack.gain_db):.1f} dB", "over interpolation, on held-out planes"
    if stack.gain_db <= 0:
        return Answer("watch", "No better than interpolation", figure, unit, lines)
    return Answer(
        "watch" if stack.warnings else "good", "Yes, but see below" if stack.warnings else "Yes", figure, unit, lines
    )


def _restored(stack: Stack, lines: tuple[str, ...]) -> Answer:
    """Answer for a volume that is there."""
    taken = (stack.restored_at or 0.0) - (stack.first or 0.0)
    figure = clock(taken) if stack.restored_at and stack.first else "–"
    unit = "from first plane to volume"
    if stack.in_hand_s is None:
        return Answer("good", "The volume is there", figure, unit, lines)
    if stack.in_hand_s < 0:
        return Answer("bad", f"{span(stack.in_hand_s)} late", figure, unit, lines)
    return Answer("good", f"Yes, {span(stack.in_hand_s)} early", figure, unit, lines)


def _decided(stack: Stack, *, paused: bool) -> tuple[str, ...]:
    """Tell what the budget controller decided, and what the worker is at."""
    lines = []
    over = stack.state in ("restored", "failed")
    if stack.stage and not over:
        lines.append(f"at work: {stack.stage}" + (" (learning is paused)" if paused else ""))
    elif paused and not over:
        lines.append("learning is paused; the deadline stands")
    if stack.finishing and not over:
        lines.append("somebody asked to finish now")
    if stack.restoring_s is not None and stack.restoring_s >= 1 and not over:
        lines.append(f"restoring takes about {span(stack.restoring_s)}")
    if stack.decision is not None:
        lines.append(f"decided: {decision_told(stack.decision.decision, stack.decision.reason)}"[:160])
    return tuple(lines)
