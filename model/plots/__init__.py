"""Pictures of images and figures."""
