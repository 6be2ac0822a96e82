"""Looking inside a trained model: each method is a function from model and image to an array."""
