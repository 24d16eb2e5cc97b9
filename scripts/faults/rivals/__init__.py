"""The same faults against other trainers, each set up to resume as its own documentation says."""
