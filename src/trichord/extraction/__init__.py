"""From folders of videos and tables of clips to a store: plan, lease, extract, commit. `extract` is the way in."""
