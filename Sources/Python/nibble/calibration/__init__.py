"""What `python -m nibble.calibrate` is made of: texts into tokens, a model a layer at a time, sums over what its linear
layers are given, and the files that these go to."""
