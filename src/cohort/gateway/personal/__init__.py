"""Personal data and secrets in what is asked: found by exact rules, taken out where a release says so."""
