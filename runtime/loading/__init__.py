"""How a model is loaded: options, limits of this machine, and what sessions share."""
