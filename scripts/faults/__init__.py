"""Fault harness: real training jobs, killed, signalled and damaged, and a count of what survives. Development only.

Run with `scripts/` on the path, for example `PYTHONPATH=scripts python -m faults.rivals.measure --json`.
"""
