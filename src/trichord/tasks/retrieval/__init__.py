"""Retrieval of clips and texts: the measure, and the protocols of the field."""
