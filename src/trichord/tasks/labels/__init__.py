"""Tasks on clips with labels: zero-shot classification, linear probes, nearest neighbours and clustering."""
