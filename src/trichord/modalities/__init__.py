"""The modalities: a specification of each, and the registry that finds them."""
