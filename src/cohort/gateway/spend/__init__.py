"""Who may call, and what they may spend: clients' keys, budgets, rates, prices."""
