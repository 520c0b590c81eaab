"""What quality is measured on, in the small: drawing it at full size takes longer than most of what is looked at."""

import pytest

from otf_stream.bench import cases


@pytest.fixture(scope="module", autouse=True)
def small_cases():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cases, "SIDE", 128)
        yield
    cases._drawn.cache_clear()
