"""What the workers of a machine share besides budgets: files mapped into memory, each whole after any of them is killed."""
