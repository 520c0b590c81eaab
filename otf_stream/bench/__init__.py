"""Benchmarks: what the documentation claims, measured by commands that anyone can run."""
