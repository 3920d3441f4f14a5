"""The building blocks of the network: DAVEnet, gated units, encoders and batch normalization over several processes.

The modules take plain arguments and tensors and do not read stores, recipes or data files. The network that combines them lives in
`trichord.nn`, and the choice of an encoder for each modality in `trichord.modalities`.
"""
