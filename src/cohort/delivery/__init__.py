"""How a change reaches users: releases, plans, rollouts, gates."""
