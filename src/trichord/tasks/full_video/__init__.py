"""Retrieval of full videos by the captions of their clips."""
