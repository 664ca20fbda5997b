"""From an encoded picture to the network's input."""
