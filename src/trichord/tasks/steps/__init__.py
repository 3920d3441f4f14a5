"""Localization of the steps of a task in a video."""
