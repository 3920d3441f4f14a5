"""The pairwise losses, one in each module. The name of a module is the name of its loss in `loss.contrast`."""
