"""The ladder: the small models that the big one has to beat, on the same tokens, ids and training loop."""
