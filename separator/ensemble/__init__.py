"""Several models that work as one."""
