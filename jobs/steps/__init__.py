"""The steps that entry points are made of, each recorded in the run."""
