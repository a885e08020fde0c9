"""Where images and their similarities come from: one file a source."""
