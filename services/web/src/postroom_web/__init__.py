"""The service page. Shows what the other parts know, passes on what an operator asks for; keeps nothing and decides nothing about mail."""
