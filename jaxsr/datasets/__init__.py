"""Images to train on and to measure with: folders, BSDS300, and patches cut from them."""
