"""Corpus: where documents come from, how they are cleaned, split and stored."""
