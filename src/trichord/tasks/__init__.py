"""The tasks of an evaluation. The package of each task contains its measures, its protocols and the rows of its results."""
