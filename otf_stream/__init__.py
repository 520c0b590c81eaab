"""An isotropic view of a microscope's sample while the sample is still on the stage."""

__version__ = "0.1.0"
