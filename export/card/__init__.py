"""What a bundle tells people and other programs: the model card, and the Modelfile of Ollama."""
