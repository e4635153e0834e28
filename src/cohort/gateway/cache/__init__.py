"""Answers that are kept: exact in process, shared and on disk, and for other wordings of the same question."""
