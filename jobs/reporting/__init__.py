"""What is shown of a run, and of the warehouse as it stands."""
