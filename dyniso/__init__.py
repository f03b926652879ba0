"""dyniso: dynamical isometry and plasticity in continual learning (companion to arXiv 2606.09762)."""

__version__ = "0.1.0"
