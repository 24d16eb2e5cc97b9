"""Faults against our own line of stages: kills, signals, damage, full disks and locks."""
