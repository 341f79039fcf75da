"""What the image holds."""

print("hello")
