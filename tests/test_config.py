"""Settings: files and flags, and what is said of a bad one."""

from pathlib import Path

import pytest

from otf_stream.config import ConfigError, ServiceConfig

SHIPPED = Path(__file__).parents[1] / "deploy" / "otf.toml"


def test_the_annotated_file_is_the_defaults():
    assert ServiceConfig.load(SHIPPED) == ServiceConfig()


def test_a_flag_wins_over_the_file(tmp_path):
    file = tmp_path / "otf.toml"
    file.write_text('budget_s = 100\nmethod = "interpolate"\n')
    config = ServiceConfig.load(file, budget_s=20.0, tail_s=None)
    assert (config.budget_s, config.tail_s, config.method) == (20.0, 60.0, "interpolate")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget_s = 0", "budget_s: has to be above 0 .it is 0"),
        ('listen = "8421"', "listen: give tcp://HOST:PORT.*it is '8421'"),
        ("bugdet_s = 10", "bugdet_s"),
        ('method = "magic"', "finetune"),
        ('security = "tls"', "'curve'"),
        ("budget_s = ", "not valid TOML"),
    ],
)
def test_a_bad_setting_is_named(tmp_path, text, said):
    file = tmp_path / "otf.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        ServiceConfig.load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        ServiceConfig.load(tmp_path / "absent.toml")
