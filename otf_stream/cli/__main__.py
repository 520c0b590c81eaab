"""``python -m otf_stream.cli``, for where no script was installed."""

from otf_stream.cli import main

main()
