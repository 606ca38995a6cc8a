"""Descriptions in a bundle for people and programs: the model card, and the Modelfile of Ollama."""
