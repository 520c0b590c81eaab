"""Ways to look at a session store in other people's viewers. They read the store, which does not know that they do."""
