"""How well the weights tell people apart, by labelled pairs; nothing of it is stored but aggregates."""
