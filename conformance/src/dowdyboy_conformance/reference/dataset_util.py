"""Image folders: splitting off a validation set, and CIFAR-10; see :mod:`dowdyboy_core.dataset_util`."""

from dowdyboy_core.dataset_util import generate_cifar10_image_folder, split_val_dataset_image_folder

__all__ = ["generate_cifar10_image_folder", "split_val_dataset_image_folder"]
