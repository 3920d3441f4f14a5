"""The report of a study: what its page shows and the figures published elsewhere next to it."""
