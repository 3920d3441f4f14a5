"""The building blocks of networks."""
