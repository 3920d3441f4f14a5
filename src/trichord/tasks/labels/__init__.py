"""Clips with labels: zero-shot classification, probes, nearest neighbours and clusters."""
