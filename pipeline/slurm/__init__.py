"""Batch jobs: what `submit` writes and hands to Slurm, and where those jobs stand."""
