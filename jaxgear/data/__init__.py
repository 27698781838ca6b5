"""Pictures: from a folder of photographs to batches on a device."""
