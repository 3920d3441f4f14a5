"""Reading, writing and deleting files. All other rooms go through this one, so that each rule is implemented once.

`reading` opens regular files only and limits how much it reads. `writing` replaces files completely or not at all. `folders`
refuses links below an output folder and removes only files that trichord created. Knowledge of file formats (the JSON of a
study, the safetensors of a store) and code that needs torch live in other rooms.
"""
