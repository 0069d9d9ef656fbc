"""Asking OpenAI-compatible servers: retries, many questions at once, replies paid for once."""
