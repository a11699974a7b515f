"""Measures: how good, how fast, how right."""
