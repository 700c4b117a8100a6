"""What a GPU does with the pipeline, measured on a bare machine in some minutes: see `bench.gpu.__main__`."""
