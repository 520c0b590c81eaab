"""The forward model of the microscope, as pure functions over arrays."""
