"""Tools: OpenAI's ``tools`` in the prompt, calls bound by their schemas, and calls in the answer."""
