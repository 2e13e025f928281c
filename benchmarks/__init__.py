"""Measurements against what people run otherwise, in one run; never timed tests."""
