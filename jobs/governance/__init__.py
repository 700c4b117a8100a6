"""Who may be indexed, and the proof of it."""
