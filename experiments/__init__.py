"""One command line a question: each parses, loads, calls jaxsr and reports."""
