"""Whether a domain's mail arrives, and why not. Reads DNS, listeners and replies; never sends mail and changes nothing."""
