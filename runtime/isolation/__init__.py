"""A backend in a process of its own, which can be killed: what ``Engine.load(isolate=True)`` runs."""
