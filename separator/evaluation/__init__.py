"""Measure separated stems: BSSEval v4 and the other metrics of the field."""
