"""What holds whatever an agent or a person does: who may act."""
