"""An embedded DHP platform for trials and tests; it imports nothing from the rest of the gateway."""
