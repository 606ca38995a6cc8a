"""The HTTP server: OpenAI's API, what Home Assistant uses of Ollama's, metrics, and a chat page."""
