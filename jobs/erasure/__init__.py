"""An erasure from what is asked for to the proof that nothing is left."""
