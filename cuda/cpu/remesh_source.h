// SPDX-License-Identifier: Apache-2.0
// The surface that is remeshed, as it was: where on it the point nearest to another one is.
#pragma once
#include <vector>

#include "box_tree.h"
#include "remesh_surface.h"

namespace geodiff {

struct Place {
    int face = -1;
    double weight[3] = {0, 0, 0};  // of its corners
    Vec point{{0, 0, 0}};
};

// The weights of the point of a triangle nearest to x, by the region that it is in; exact at the corners.
inline void nearest_weights(const Vec& x, const Vec& a, const Vec& b, const Vec& c, double* weight) {
    const auto set = [=](double u, double v, double w) { weight[0] = u, weight[1] = v, weight[2] = w; };
    const Vec ab = b - a, ac = c - a, ax = x - a, bx = x - b, cx = x - c;
    const double d1 = dot(ab, ax), d2 = dot(ac, ax), d3 = dot(ab, bx), d4 = dot(ac, bx), d5 = dot(ab, cx),
                 d6 = dot(ac, cx);
    if (d1 <= 0 && d2 <= 0) return set(1, 0, 0);
    if (d3 >= 0 && d4 <= d3) return set(0, 1, 0);
    if (d6 >= 0 && d5 <= d6) return set(0, 0, 1);
    const double va = d3 * d6 - d5 * d4, vb = d5 * d2 - d1 * d6, vc = d1 * d4 - d3 * d2;
    if (vc <= 0 && d1 >= 0 && d3 <= 0) {
        const double t = d1 / (d1 - d3);
        return set(1 - t, t, 0);
    }
    if (vb <= 0 && d2 >= 0 && d6 <= 0) {
        const double t = d2 / (d2 - d6);
        return set(1 - t, 0, t);
    }
    if (va <= 0 && d4 >= d3 && d5 >= d6) {
        const double t = (d4 - d3) / ((d4 - d3) + (d5 - d6));
        return set(0, 1 - t, t);
    }
    const double u = std::max(va, 0.0), v = std::max(vb, 0.0), w = std::max(vc, 0.0), sum = u + v + w;
    if (!(sum > 0)) return set(1, 0, 0);  // without area
    set(u / sum, v / sum, w / sum);
}

class Source {
public:
    Source(const std::vector<Vec>& at, const std::vector<Face>& faces)
        : at_(at), faces_(faces), normals_(faces.size()), squares_(faces.size()) {
        std::vector<Box> boxes(faces.size());
        for (size_t f = 0; f < faces.size(); ++f) {
            boxes[f] = Box::none();
            for (int v : faces[f]) boxes[f].take(at[size_t(v)].c);
            const Vec &a = at[size_t(faces[f][0])], &b = at[size_t(faces[f][1])], &c = at[size_t(faces[f][2])];
            normals_[f] = cross(b - a, c - a);
            squares_[f] = dot(normals_[f], normals_[f]);
        }
        tree_.build(boxes);
    }

    // Of the faces that look the way of `normal`, so that a thin plate's other side is none; of all for one of zeros.
    // `hint` is a face near by. Of equally near ones the least, so that the order of the search does not show.
    Place nearest(const Vec& x, const Vec& normal, int hint) const {
        Place best;
        double least = std::numeric_limits<double>::infinity();
        const bool any = !(dot(normal, normal) > 0);
        const auto look = [&](int f, double& distance) {
            if (!any && !(dot(normals_[size_t(f)], normal) > 0)) return;
            const Face& face = faces_[size_t(f)];
            const double height = dot(normals_[size_t(f)], x - at_[size_t(face[0])]);
            if (height * height > (1 + 1e-9) * distance * squares_[size_t(f)]) return;  // its plane is farther
            Place here;
            here.face = f;
            const Vec &a = at_[size_t(face[0])], &b = at_[size_t(face[1])], &c = at_[size_t(face[2])];
            nearest_weights(x, a, b, c, here.weight);
            here.point = a * here.weight[0] + b * here.weight[1] + c * here.weight[2];
            const Vec gap = here.point - x;
            const double own = dot(gap, gap);
            if (own < distance || (own == distance && (best.face < 0 || f < best.face))) distance = own, best = here;
        };
        if (hint >= 0) look(hint, least);
        tree_.nearest(x.c, least, look);
        return best;
    }

    const Face& face(int f) const { return faces_[size_t(f)]; }

private:
    const std::vector<Vec>& at_;
    const std::vector<Face>& faces_;
    std::vector<Vec> normals_;
    std::vector<double> squares_;  // of their lengths
    BoxTree tree_;
};

// The borders and creases of the input, on which their vertices stay.
class Curves {
public:
    Curves(const std::vector<Vec>& at, std::vector<std::array<int, 2>> ends) : at_(at), ends_(std::move(ends)) {
        std::vector<Box> boxes(ends_.size());
        for (size_t i = 0; i < ends_.size(); ++i) {
            boxes[i] = Box::none();
            for (int v : ends_[i]) boxes[i].take(at[size_t(v)].c);
        }
        tree_.build(boxes);
    }

    Vec nearest(const Vec& x) const {
        double least = std::numeric_limits<double>::infinity();
        int which = -1;
        Vec best = x;
        tree_.nearest(x.c, least, [&](int i, double& distance) {
            const Vec &a = at_[size_t(ends_[size_t(i)][0])], way = at_[size_t(ends_[size_t(i)][1])] - a;
            const double square = dot(way, way);
            const double t = square > 0 ? std::min(std::max(dot(x - a, way) / square, 0.0), 1.0) : 0.0;
            const Vec here = a + way * t, gap = here - x;
            const double own = dot(gap, gap);
            if (own < distance || (own == distance && (which < 0 || i < which))) distance = own, which = i, best = here;
        });
        return best;
    }

private:
    const std::vector<Vec>& at_;
    std::vector<std::array<int, 2>> ends_;
    BoxTree tree_;
};

}  // namespace geodiff
