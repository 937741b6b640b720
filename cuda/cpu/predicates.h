// SPDX-License-Identifier: Apache-2.0
// Exact signs of the determinants that say on which side of a line or plane a point is: in double where a bound on the
// rounding decides, else as sums of doubles without rounding (Shewchuk, "Adaptive precision floating-point arithmetic and
// fast robust geometric predicates", 1997). Exact for coordinates of which no product of three over- or underflows.
#pragma once
#include <cmath>

namespace geodiff {

// A number as a sum of doubles that do not overlap, the least first. N: how many there may be.
template <int N>
class ExactSum {
public:
    void add(double x) {
        int kept = 0;
        for (int i = 0; i < size_; ++i) {
            const double sum = x + part_[i], most = sum - x;
            const double rest = (x - (sum - most)) + (part_[i] - most);
            x = sum;
            if (rest != 0) part_[kept++] = rest;
        }
        if (x != 0) part_[kept++] = x;
        size_ = kept;
    }
    void add_product(double x, double y) {
        const double product = x * y;
        if (product == 0) return;
        add(std::fma(x, y, -product));
        add(product);
    }
    void add_product(double x, double y, double z) {
        const double product = x * y;
        if (product == 0 || z == 0) return;
        add_product(std::fma(x, y, -product), z);
        add_product(product, z);
    }
    int sign() const { return size_ == 0 ? 0 : part_[size_ - 1] > 0 ? 1 : -1; }

private:
    double part_[N];
    int size_ = 0;
};

// A difference of two doubles, exactly.
struct Difference {
    double part[2];
    Difference(double a, double b) {
        part[0] = a - b;
        const double most = a - part[0];
        part[1] = (a - (part[0] + most)) + (most - b);
    }
};

inline int sign_of(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

// The sign of (a − c) × (b − c) in the plane of the coordinates i and j: 1 where a, b, c turn counter-clockwise. With
// `sure` 0 where rounding leaves it open, instead of the exact one.
template <bool exact = true>
int turn(const double* a, const double* b, const double* c, int i, int j) {
    const double left = (a[i] - c[i]) * (b[j] - c[j]), right = (a[j] - c[j]) * (b[i] - c[i]);
    const double sum = left - right;
    if (std::abs(sum) > 3.4e-16 * (std::abs(left) + std::abs(right))) return sign_of(sum);
    if constexpr (!exact) return 0;
    const Difference ax(a[i], c[i]), ay(a[j], c[j]), bx(b[i], c[i]), by(b[j], c[j]);
    ExactSum<16> total;
    for (double x : ax.part)
        for (double y : by.part) total.add_product(x, y);
    for (double y : ay.part)
        for (double x : bx.part) total.add_product(-y, x);
    return total.sign();
}

// The sign of the volume (a − d) · ((b − d) × (c − d)): 0 where the four are in one plane.
inline int side(const double* a, const double* b, const double* c, const double* d) {
    double u[3], v[3], w[3], sum = 0, size = 0;
    for (int k = 0; k < 3; ++k) u[k] = a[k] - d[k], v[k] = b[k] - d[k], w[k] = c[k] - d[k];
    for (int k = 0; k < 3; ++k) {
        const int i = (k + 1) % 3, j = (k + 2) % 3;
        const double left = v[i] * w[j], right = v[j] * w[i];
        sum += u[k] * (left - right);
        size += std::abs(u[k]) * (std::abs(left) + std::abs(right));
    }
    if (std::abs(sum) > 7.8e-16 * size) return sign_of(sum);
    if (size == 0) return 0;
    ExactSum<192> total;
    for (int k = 0; k < 3; ++k) {
        const int i = (k + 1) % 3, j = (k + 2) % 3;
        const Difference x(a[k], d[k]), vi(b[i], d[i]), vj(b[j], d[j]), wi(c[i], d[i]), wj(c[j], d[j]);
        for (double p : x.part) {
            if (p == 0) continue;
            for (double q : vi.part)
                for (double r : wj.part) total.add_product(p, q, r);
            for (double q : vj.part)
                for (double r : wi.part) total.add_product(-p, q, r);
        }
    }
    return total.sign();
}

}  // namespace geodiff
