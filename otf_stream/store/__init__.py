"""Everything on disk: session stores, their journals, recorded stacks."""
