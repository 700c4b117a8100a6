"""Benchmarks as programs, and the pictures that demo, tests and benchmarks share."""
