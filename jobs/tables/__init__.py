"""Delta tables: reads and writes, incremental and idempotent."""
