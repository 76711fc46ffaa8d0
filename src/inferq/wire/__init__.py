"""Wire formats as pure functions, shared by executors and server: framing, the OpenAI and Ollama dialects, failures."""
