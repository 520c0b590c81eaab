"""Is this machine fit for its part, and for which stacks: what ``otf-stream doctor`` looks at and says.

A check measures as little as it can, and a pure function turns what was measured into a finding, so that every verdict
can be tested without the machine that deserves it. What restoring costs is told by the same code that a service plans
by.
"""
