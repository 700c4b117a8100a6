"""What a night would take, need and cost, from metadata and measured rates."""
