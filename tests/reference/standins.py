# SPDX-License-Identifier: Apache-2.0
import dataclasses

import torch

F = torch.nn.functional


@dataclasses.dataclass(frozen=True)
class Base:
    is_squared: bool = False

    def squared(self):
        return dataclasses.replace(self, is_squared=True)

    def unsquared(self):
        return dataclasses.replace(self, is_squared=False)


class Logistic(Base):
    def log_cdf(self, x):
        return F.logsigmoid(x)

    def log_survival(self, x):
        return F.logsigmoid(-x)


class Cauchy(Base):
    def log_cdf(self, x):
        return torch.log(torch.atan2(torch.ones_like(x), -x) / torch.pi)

    def log_survival(self, x):
        return self.log_cdf(-x)


class Uniform(Base):
    def log_cdf(self, x):
        return torch.log((x * 0.5 + 0.5).clamp(0, 1))

    def log_survival(self, x):
        return self.log_cdf(-x)


class Gaussian(Base):
    def log_cdf(self, x):
        return torch.special.log_ndtr(x)

    def log_survival(self, x):
        return torch.special.log_ndtr(-x)


class Heaviside(Base):
    def log_cdf(self, x):
        return torch.where(x >= 0, 0.0, -torch.inf)

    def log_survival(self, x):
        return torch.where(x >= 0, -torch.inf, 0.0)


class Maximum:
    def aggregate_log(self, c, s, dim):
        return c.gather(dim, c.argmax(dim, keepdim=True)).squeeze(dim).exp()


class Probabilistic:
    def aggregate_log(self, c, s, dim):
        return -torch.expm1(s.sum(dim))


class Average:
    def aggregate_log(self, c, s, dim):
        return c.exp().mean(dim)


class Einstein:
    def aggregate_log(self, c, s, dim):
        return torch.tanh(0.5 * (torch.log1p(c.exp()) - s).sum(dim))


@dataclasses.dataclass(frozen=True)
class Yager:
    p: object = 2.0

    def aggregate_log(self, c, s, dim):
        return (self.p * c).exp().sum(dim).pow(1 / self.p).clamp(max=1)
