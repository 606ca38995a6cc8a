"""Loading of models: options, limits of this machine, and state that sessions share."""
