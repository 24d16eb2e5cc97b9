"""One module for each command that has many options of its own; what they do is imported when it is done."""
