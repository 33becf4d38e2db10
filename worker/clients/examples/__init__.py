"""Short programs that use the client; each says in its first lines how to run it."""
