"""What a trained model is worth: numbers, plots and pages."""
