"""Chat: templates in a sandbox, prompts, and completions in OpenAI's format."""
