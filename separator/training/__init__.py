"""Training: losses and synthetic multitracks."""
