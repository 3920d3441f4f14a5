"""The order study: orders x seeds, each stage trained once, one table."""
