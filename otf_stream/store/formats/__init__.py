"""One module per format of recorded stacks; each opens a path as a `source.Source`."""
