"""The specifications of the modalities, and the registry that finds them.

A specification says which streams of a store a modality is read from, how its clips become tensors, and which encoder it has. The
encoders themselves live in `trichord.layers`, the names and letters of modalities in `trichord.modality`, and the assembly of
batches in `trichord.data`.
"""
