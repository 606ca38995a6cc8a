"""Token by token: sampling, stop conditions, the generation loop."""
