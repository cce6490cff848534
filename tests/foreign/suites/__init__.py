"""The suites of client.py: calls, and tables of them."""
