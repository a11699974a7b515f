"""How good are pictures: distances between sets of images, and scores of single ones."""
