"""Stacks that are to be restored are found in the folder as it is, and nothing is kept of what was in it."""

import shutil
import sys

import psutil
import pytest
from stacks import small_stack

from otf_stream.service.pending import PendingStacks
from otf_stream.store.journal import journal_path, remove_journal


@pytest.fixture
def pending(tmp_path):
    pending = PendingStacks(tmp_path)
    yield pending
    pending.close()


def keys(pending):
    return [stack.key for stack in pending.find()]


def delete(store):
    store.close()
    shutil.rmtree(store.path)
    remove_journal(journal_path(store.path))


@pytest.mark.skipif(sys.platform == "win32", reason="deletes what is open")
def test_a_session_that_is_deleted_amid_its_stack_leaves_no_handle(session, pending):
    kept = session({(0, 0): small_stack(side=40)}, name="kept")
    assert keys(pending) == [(kept.session, (0, 0))]
    handles = psutil.Process().num_fds()
    for number in range(3):
        store = session({(0, 0): small_stack(side=40)}, name=f"n{number}", close=False)
        (found,) = (stack for stack in pending.find() if stack.store.session == store.session)
        delete(store)
        assert keys(pending) == [(kept.session, (0, 0))]
        assert found.store.journal.planes_of((0, 0)) == list(range(10))  # whoever is at it may end what it is doing
    assert keys(pending) == [(kept.session, (0, 0))]
    assert psutil.Process().num_fds() == handles


def test_a_session_that_is_done_is_looked_at_again_when_it_changes(session, pending):
    store = session({(0, 0): small_stack(side=40)})
    assert len(keys(pending)) == 1
    store.journal.set_state((0, 0), "restored")
    assert keys(pending) == []
    handles = psutil.Process().num_fds() if sys.platform != "win32" else 0
    assert keys(pending) == []
    assert handles == (psutil.Process().num_fds() if sys.platform != "win32" else 0)
    store.journal.set_state((0, 0), "arrived")
    assert keys(pending) == [(store.session, (0, 0))]
