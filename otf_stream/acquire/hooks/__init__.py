"""Hooks that hand a microscope's frames to a publisher."""
