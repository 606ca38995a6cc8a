"""Conversations: templates in a sandbox, prompts, results in OpenAI's shape."""
