"""Local servers that speak Google Cloud's protocols, and the proxy that leads real clients there (docs/cloud.md)."""
