"""What serves the application: processes and the protocol below ASGI."""
