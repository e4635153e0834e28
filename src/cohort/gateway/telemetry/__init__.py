"""What the gateway says of its calls: the access log."""
