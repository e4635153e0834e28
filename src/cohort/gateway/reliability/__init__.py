"""What keeps calls answered while upstreams fail: attempts over routes, circuit breakers, time limits, hedging, shedding."""
