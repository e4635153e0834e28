"""How callers and upstreams speak: OpenAI's protocols and Anthropic's, and the translation between them. Bytes and values in, bytes out."""
