"""Extraction: from a folder of videos or a table of clips to a store, in the steps plan, lease, extract and commit.

`extract` is the entry point. This room decides what has to be done, runs workers and commits their results. Encoders are in
`trichord.features`, decoders in `trichord.media`, and the format of the store is in `trichord.store`.
"""
