"""The pairwise losses, one per module.

The name of a module is the name of its loss in the setting `loss.contrast`. The formulas that several losses share live in
`losses/contrast.py`, and the interface in `losses/pair.py`.
"""
