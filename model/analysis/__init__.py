"""What a net has learned: errors by class, features and neighbours; the small nets of figure 1.

confusion.py          errors by class, and the most frequent confusions
features.py           feature vectors: the activations of the last hidden layer
nearest.py            nearest neighbours of vectors and of binary codes
hash_codes.py         short binary codes of vectors, from an auto-encoder
comparison.py         the comparison of two small nets at their best learning rates
small_net_trainer.py  their training
"""
