"""Command-line programs, each a Hydra app."""
