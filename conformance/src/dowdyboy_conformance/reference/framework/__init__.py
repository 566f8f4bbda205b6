"""A deep learning framework in a few screens: what a backend binds, and no more than the checks need of one.

It stands where PyTorch or PaddlePaddle stand in the other backends, and knows nothing of dowdyboy. It computes in
float32 on NumPy, and has no GPU and no half precision.

    tensor.py    arrays that remember how they were computed, and gradients
    layers.py    modules: linear, tanh, dropout, BatchNorm, two losses
    optim.py     SGD, Adam, and two schedulers
    data.py      datasets, and a loader with worker processes
    random.py    the one random stream that dropout and initial weights draw from
"""
