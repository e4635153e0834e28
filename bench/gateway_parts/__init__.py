"""Parts of bench/gateway.py: what is asked, who answers, who asks."""
