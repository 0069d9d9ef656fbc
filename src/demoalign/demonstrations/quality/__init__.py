"""What is in demonstrations that one may not want to learn from."""
