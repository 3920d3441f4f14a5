"""Retrieval of clips and texts: measures and published protocols."""
