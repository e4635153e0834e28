"""L4: an answer to the same question in other words, given only where that has been seen to be right."""
