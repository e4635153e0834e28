"""A local model of embeddings, in a process of its own: what the semantic cache may ask instead of a vendor. Needs the extra `embeddings`."""
