"""From raw planes and a network to an isotropic volume."""
