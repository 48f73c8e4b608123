"""How fast jaxsr is, against what, and how that is timed."""
