"""The tasks of an evaluation: each holds its measure, the protocols that score it, and the rows that these give."""
