"""Rules proposed from labelled decisions: what can be read of a call, conditions over it, the simplest that tell."""
