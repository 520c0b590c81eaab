"""What became of a stack, on one page for people: read from its store and journal, which it never changes."""
