"""The order study, which trains each order with each seed, evaluates the models and writes a table; and evaluations."""
