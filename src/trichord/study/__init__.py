"""The order study: train each order with each seed, with each stage trained once, and write one table."""
