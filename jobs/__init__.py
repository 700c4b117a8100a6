"""Face Reindex: everything but the work on images. See README."""
