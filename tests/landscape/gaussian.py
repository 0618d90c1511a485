"""Gaussian landscapes with their closed forms."""

import math

import models
import torch


class Gaussian:
    """f = ½ wᵀ H w with H of the given curvatures in random directions, x random; all that the measures should give."""

    def __init__(self, curvatures, gamma, beta=1.0, seed=0, shift=1.0):
        generator = torch.Generator().manual_seed(seed)
        h = torch.as_tensor(curvatures, dtype=torch.float64)
        n = len(h)
        basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        hessian = basis @ torch.diag(h) @ basis.T
        self.hessian = (hessian + hessian.T) / 2
        self.x = shift * torch.randn(n, generator=generator, dtype=torch.float64)
        self.gamma, self.beta = gamma, beta
        self.objective = models.quadratic(self.hessian, start=self.x)
        precision = self.hessian + gamma * torch.eye(n, dtype=torch.float64)
        self.covariance = torch.linalg.inv(precision) / beta
        self.mean = gamma * torch.linalg.solve(precision, self.x)
        spread = torch.trace(self.hessian @ self.covariance)
        self.mean_loss = float(self.mean @ self.hessian @ self.mean + spread) / 2
        self.loss_variance = float(
            torch.trace(self.hessian @ self.covariance @ self.hessian @ self.covariance) / 2
            + self.mean @ self.hessian @ self.covariance @ self.hessian @ self.mean
        )
        self.squared_radius = float((self.mean - self.x).square().sum() + torch.trace(self.covariance))
        # log Z = (n/2) log(2π/(β(h + γ))) − βγh‖x‖²/(2(h + γ)), over the eigenvectors.
        self.local_entropy = float(
            n / 2 * math.log(2 * math.pi)
            + torch.logdet(self.covariance) / 2
            - beta * gamma / 2 * self.x @ self.hessian @ torch.linalg.solve(precision, self.x)
        )
        self.phi = self.local_entropy - n / 2 * math.log(2 * math.pi / (beta * gamma))
        self.classical_entropy = float(n / 2 * math.log(2 * math.pi * math.e) + torch.logdet(self.covariance) / 2)


def spread_out(n, largest, decades=3.0, seed=0):
    """n curvatures up to ``largest``, even in their logarithms over so many decades."""
    generator = torch.Generator().manual_seed(seed + 1000)
    return largest * 10 ** (-decades * torch.rand(n, generator=generator, dtype=torch.float64))
