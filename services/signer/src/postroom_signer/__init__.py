"""The signer: holds the DKIM keys and signs header blocks. It never sees a body, never talks to the world, never gives a key away."""
