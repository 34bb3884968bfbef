"""The thin edges: LND, Redis, the admin service."""
