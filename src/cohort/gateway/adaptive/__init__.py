"""Which of a release's two models answers a conversation: a score of difficulty, a boundary that keeps the wanted share, pins."""
