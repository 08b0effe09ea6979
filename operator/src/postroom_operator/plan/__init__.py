"""The plan: what is wanted, from resources, what is there, and the time. Pure; the same code on one machine and in a cluster."""
