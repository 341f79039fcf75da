"""From the station's days to the normals of a year."""
