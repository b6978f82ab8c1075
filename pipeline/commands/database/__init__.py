"""What `python -m pipeline db` can do, a module each."""
