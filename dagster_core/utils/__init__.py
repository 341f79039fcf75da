"""Storage, resources and the station's files."""
