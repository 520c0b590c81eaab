"""Options of the charts: what flows, what waits, how learning goes, and which planes of a stack there are.

Drawn by ECharts as SVG, whose colours are names of the page's style sheet: light and dark need no second set of
options. Series are told apart by their line or pattern as well as by colour. Points are few, however long a run is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otf_stream.monitor.monitor import Sample
from otf_stream.monitor.state import Gap, Stack

Options = dict[str, Any]
_MOST_POINTS = 180
_MOST_SEGMENTS = 40
_FONT = 15
_FIRST, _SECOND, _TEXT, _GRID = "var(--first)", "var(--second)", "var(--text)", "var(--grid)"
_PLANES = {
    "on disk": ("var(--good)", None),
    "missing": ("var(--bad)", {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "rotation": -0.8}),
    "to come": ("var(--empty)", None),
}


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Return at most so many samples as a chart has room for, the mean rates of neighbours."""
    every = -(-len(samples) // _MOST_POINTS) or 1
    # Groups begin at whole multiples, or all points would change with each sample.
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int(sample.at / every), []).append(sample)
    return [
        group[-1].model_copy(
            update={
                "planes_per_s": sum(one.planes_per_s for one in group) / len(group),
                "bytes_per_s": sum(one.bytes_per_s for one in group) / len(group),
                "queue_bytes": max(one.queue_bytes for one in group),
            }
        )
        for group in groups.values()
    ]


def flow(samples: Sequence[Sample]) -> Options:
    """Return the chart of what became durable, in MB and planes a second."""
    return _over_time(
        samples,
        ("MB/s", [round(one.bytes_per_s / 1e6, 3) for one in samples]),
        ("planes/s", [round(one.planes_per_s, 2) for one in samples]),
    )


def queues(samples: Sequence[Sample]) -> Options:
    """Return the chart of what waits: for the disk, and for the worker."""
    return _over_time(
        samples,
        ("MB waiting for the disk", [round(one.queue_bytes / 1e6, 3) for one in samples]),
        ("stacks waiting", [one.stacks_waiting for one in samples]),
    )


def disk(samples: Sequence[Sample], reserve: int) -> Options:
    """Return the chart of the room on the disk, with the reserve below which planes are held back."""
    options = _over_time(samples, ("GB free", [round(one.disk_free / 1e9, 3) for one in samples if one.disk_free]))
    options["series"][0]["areaStyle"] = {"opacity": 0.15}
    options["series"][0]["markLine"] = {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": "var(--bad)", "width": 2, "type": "dashed"},
        "label": {"formatter": "reserve", "position": "insideEndTop", "color": _TEXT, "fontSize": _FONT},
        "data": [{"yAxis": round(reserve / 1e9, 3)}],
    }
    return options


def learning(stack: Stack | None) -> Options:
    """Return the chart of the training loss against steps, a line for each stage."""
    options = _frame()
    options["xAxis"] = _axis("value", "steps", {"nameLocation": "middle", "nameGap": 26, "min": 0})
    options["yAxis"] = _axis("value", "", {"scale": True})
    curves = {curve.stage: curve for curve in stack.training} if stack else {}
    options["series"] = []
    for stage, colour, line in (("denoise", _SECOND, "dashed"), ("finetune", _FIRST, "solid")):
        curve = curves.get(stage)
        points = list(zip(curve.steps, curve.loss, strict=True)) if curve else []
        points = points[:: -(-len(points) // _MOST_POINTS) or 1]
        series = _line(stage, [[step, float(f"{loss:.5g}")] for step, loss in points], colour, line)
        options["series"].append(series | {"showSymbol": len(points) < 8})
    return options


def segments(stack: Stack, gaps: Sequence[Gap], first: int) -> list[tuple[str, int, int]]:
    """Return what the planes of a stack are, along z, as ``(what, from, how many)``.

    Parameters
    ----------
    stack
        Whose.
    gaps
        Of its session, as many as are told.
    first
        Its first plane.
    """
    own = sorted((gap.first, gap.last) for gap in gaps if (gap.t, gap.c) == (stack.t, stack.c))
    found: list[tuple[str, int, int]] = []
    at, there, lost = first, stack.planes, stack.missing

    def put(what: str, count: int) -> None:
        nonlocal at
        if count > 0:
            found.append((what, at, count))
            at += count

    for low, high in own[: _MOST_SEGMENTS // 2]:
        count = min(low - at, there)
        put("on disk", count)
        there -= max(count, 0)
        count = min(high - low + 1, lost)
        put("missing", count)
        lost -= count
    put("on disk", there)
    put("missing", lost)  # more than are told of
    put("to come", first + stack.expected - at)
    return found


def planes(parts: Sequence[tuple[str, int, int]]) -> Options:
    """Return the strip of a stack's planes along z."""
    series: list[Options] = []
    low = parts[0][1] if parts else 0
    for what, at, count in parts:
        colour, decal = _PLANES[what]
        style: Options = {"color": colour, "borderColor": "var(--card)", "borderWidth": 1}
        if decal:
            style["decal"] = decal | {"color": "var(--card)"}
        place = f"z {at}" if count == 1 else f"z {at}–{at + count - 1}"
        series.append(
            {
                "type": "bar",
                "name": f"{what}, {place}",
                "stack": "planes",
                "data": [count],
                "barWidth": "100%",
                "itemStyle": style,
                "emphasis": {"disabled": True},
                "silent": False,
            }
        )
    total = sum(count for _, _, count in parts)
    return {
        "animation": False,
        "grid": {"left": 2, "right": 2, "top": 4, "bottom": 24},
        "tooltip": {"trigger": "item", "formatter": "{a}", "confine": True},
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": max(total, 1),
            "splitLine": {"show": False},
            "axisLabel": {"color": _TEXT, "fontSize": _FONT, ":formatter": f"value => 'z ' + (value + {low})"},
        },
        "yAxis": {"type": "category", "data": ["z"], "show": False},
        "series": series,
        "aria": {"enabled": True, "label": {"description": _described(parts)}},
    }


def _described(parts: Sequence[tuple[str, int, int]]) -> str:
    """Return the strip in words."""
    return "; ".join(f"{count} planes {what} from z {at}" for what, at, count in parts) or "no planes"


def _over_time(samples: Sequence[Sample], *lines: tuple[str, list[float] | list[int]]) -> Options:
    """Return a chart of up to two quantities over time, each with an axis of its own."""
    options = _frame()
    options["xAxis"] = _axis("time", "", {"splitNumber": 4})
    options["xAxis"]["axisLabel"]["formatter"] = "{HH}:{mm}:{ss}"
    options["yAxis"] = []
    options["series"] = []
    looks = ((_FIRST, "solid"), (_SECOND, "dashed"))
    for number, ((name, values), (colour, line)) in enumerate(zip(lines, looks, strict=False)):
        place: Options = {
            "position": ("left", "right")[number],
            "min": 0,
            "minInterval": 1 if name.startswith("stacks") else 0,
        }
        if number:
            place["splitLine"] = {"show": False}
        options["yAxis"].append(_axis("value", "", place))
        points = [[round(one.at * 1000), value] for one, value in zip(samples, values, strict=False)]
        options["series"].append(_line(name, points, colour, line) | {"yAxisIndex": number})
    return options


def _frame() -> Options:
    return {
        "animation": False,
        "textStyle": {"fontFamily": "system-ui, DejaVu Sans, sans-serif", "fontSize": _FONT},
        "grid": {"left": 8, "right": 12, "top": 34, "bottom": 8, "containLabel": True},
        "legend": {"top": 0, "left": 0, "itemWidth": 34, "textStyle": {"color": _TEXT, "fontSize": _FONT}},
        "tooltip": {"trigger": "axis", "confine": True},
        "aria": {"enabled": True},
    }


def _axis(kind: str, name: str, more: Options) -> Options:
    return {
        "type": kind,
        "name": name,
        "nameTextStyle": {"color": _TEXT, "fontSize": _FONT},
        "axisLabel": {"color": _TEXT, "fontSize": _FONT, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": _TEXT}},
        "splitLine": {"lineStyle": {"color": _GRID}},
        **more,
    }


def _line(name: str, points: list[list[float]], colour: str, kind: str) -> Options:
    return {
        "name": name,
        "type": "line",
        "data": points,
        "showSymbol": False,
        "color": colour,
        "lineStyle": {"width": 3, "type": kind, "color": colour},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }
