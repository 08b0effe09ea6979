"""Ingress: speaks SMTP with applications, checks who may send what, stamps the message, has it signed, hands it over. Keeps nothing on disk."""
