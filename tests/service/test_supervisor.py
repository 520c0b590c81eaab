"""The supervisor computes nothing, and refuses what its worker could not do."""

import subprocess
import sys

import pytest
import torch

from otf_stream.config import ServiceConfig
from otf_stream.service.supervisor import Service, ServiceError


def test_it_does_without_torch():
    code = "import sys, otf_stream.service.supervisor, otf_stream.service.overview; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_a_device_that_is_not_there_is_refused_at_once(tmp_path):
    with pytest.raises(ServiceError, match="--device cpu"), Service(ServiceConfig(data=tmp_path, device="cuda")):
        raise AssertionError("it started")
