"""Reading, writing and deleting files. Every other room goes through this one, so that each rule exists once.

`reading` opens regular files only and reads them with a bound. `writing` replaces files whole or not at all. `folders` refuses
links to folders below an output folder and removes only what trichord made. Formats (JSON of a study, safetensors of a
store) do not live here; neither does anything that needs torch.
"""
