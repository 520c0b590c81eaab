"""Virtual microscope, phantoms with a known truth, and the replayer of recorded stacks."""
