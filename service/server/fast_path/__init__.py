"""Answers plain requests without ASGI."""
