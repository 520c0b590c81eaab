"""The parts composed: worker, budget, supervisor."""
