"""The wire: from the microscope's PC to the session store."""
