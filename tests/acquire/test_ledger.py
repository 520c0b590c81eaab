from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otf_stream.acquire.ledger import Ledger
from otf_stream.acquisition import Sizes

SIZES = Sizes(t=2, c=3, z=4, y=1, x=1)
EVERY = [(t, c, z) for t in range(2) for c in range(3) for z in range(4)]


@given(st.dictionaries(st.sampled_from(EVERY), st.integers(0, 2**32 - 1)), st.integers(0, 30))
def test_knows_what_is_there_and_what_is_not(there: dict[tuple[int, int, int], int], limit: int) -> None:
    ledger = Ledger(SIZES)
    for plane, crc in there.items():
        ledger.record(plane, crc)
        ledger.record(plane, crc ^ 1)  # the first note stands
    assert {plane: ledger.crc(plane) for plane in EVERY} == {plane: there.get(plane) for plane in EVERY}
    assert (ledger.count, ledger.missing_count) == (len(there), len(EVERY) - len(there))
    assert [(t, c, z) for t, c, z0, z1 in ledger.runs(100) for z in range(z0, z1)] == sorted(there)
    assert ledger.runs(limit) == ledger.runs(100)[:limit]
    assert ledger.missing(limit) == [plane for plane in EVERY if plane not in there][:limit]
