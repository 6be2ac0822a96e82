"""What a training needs besides `fit`: runs that survive, devices, optimizers, callbacks."""
