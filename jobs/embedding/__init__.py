"""The embedding stage: the model, chunks of work, faces and outcomes."""
