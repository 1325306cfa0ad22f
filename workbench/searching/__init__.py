"""Many versions of a policy, the few that nothing beats, and rules proposed for harm that is still allowed."""
