"""What the pipeline tells people: metrics, the baseline, the evaluation report, the result table."""
