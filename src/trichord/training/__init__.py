"""The stages of a training, the loop that trains them, and the files that it writes."""
