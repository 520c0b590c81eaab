from otf_stream.learn.nafnet import deblurring_network
from otf_stream.service.memory import Lesson, Memory


def lesson(stack):
    return Lesson(stack, deblurring_network(), deblurring_network(), "digest")


def test_remembers_the_latest_time_point_of_each_channel():
    memory = Memory()
    for t in range(2):
        memory.keep("a", lesson((t, 0)))
    memory.keep("a", lesson((0, 1)))
    assert memory.recall("a", (2, 0)).stack == (1, 0)
    assert memory.recall("a", (1, 1)).stack == (0, 1)
    assert memory.recall("a", (0, 2)) is None
    assert memory.recall("b", (1, 0)) is None
    memory.forget("a", (4, 1))
    assert memory.recall("a", (1, 1)) is None
    assert memory.recall("a", (1, 0)) is None  # a stack that is restored anew does not start from itself


def test_what_is_recalled_may_be_trained_further():
    memory = Memory()
    memory.keep("a", lesson((0, 0)))
    recalled = memory.recall("a", (1, 0))
    for parameter in recalled.deblurring.parameters():
        parameter.data.fill_(7)
    assert all(not bool((p == 7).all()) for p in memory.recall("a", (1, 0)).deblurring.parameters())


def test_forgets_the_oldest_channels():
    memory = Memory()
    small = lesson((0, 0))
    for number in range(70):
        memory.keep(str(number), small)
    assert memory.recall("0", (1, 0)) is None
    assert memory.recall("69", (1, 0)) is not None
