"""``otf-stream bench chaos``: what goes wrong is made to go wrong, again and again, and nothing may be lost.

Each kind of trouble is a part, a module of its own that offers many small runs; each run looks for itself whether what
was promised was kept, and reports what was not. `report` has the list of the parts.
"""
