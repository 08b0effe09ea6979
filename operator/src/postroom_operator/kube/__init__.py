"""The edge to the Kubernetes API: requests, caches of what is watched, apply and prune, Events. Decides nothing about mail."""
