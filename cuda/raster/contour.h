// SPDX-License-Identifier: Apache-2.0
// The outline of a mesh's image: where its candidate edges are cut, the distance of a pixel to a piece of outline, and
// the way back to the ends of the edges. In double throughout: outlines of float meshes need no less, and cost little.
//
// A segment is an edge of a face's polygon that all of its faces lie on one side of. Pieces of it that have background
// on the other side are outline. See geodiff/reference/outline.py, which says the same in torch.
#pragma once
#include "polygon.h"

namespace gd {

// Which piece of work ends a piece: a number ≥ 0 is the segment that crosses there.
enum PieceEnd { kFree = -1 };
// What the nearest point of a pixel is: inside of a piece, or one of its ends (≥ 0: a crossing with that segment).
enum NearestKind { kStrip = -1, kPoint = -2 };

struct Segment {
    double ax, ay, ex, ey;
    double length;
    double nx, ny;     // outward unit normal
    double step;       // how far outside of it background must be seen
    double low, high;  // the part of it within reach of the image, 0…1
    int code;          // 4·face + edge of its polygon
    int image;         // for those who work on several at once
};

struct Piece {
    double ax, ay, ex, ey;  // of the whole segment
    double inverse;         // 1/length²
    double low, high;
    int segment, ends[2];   // kFree or a crossing segment
};

// A face in the image: which side of the triangle each edge of its polygon lies on, −1 for the near plane's cut.
struct View {
    double x[4], y[4];
    double orientation;
    signed char side[4];
    int n;
};

// Thinner than `epsilon` of the dtype that the vertices came in: contributes nothing.
GEODIFF_HD void orient(View& v, double epsilon) {
    double area = 0, longest = 0;
    for (int k = 0; k < v.n; ++k) {
        const int l = k + 1 == v.n ? 0 : k + 1;
        const double ax = v.x[k] - v.x[0], ay = v.y[k] - v.y[0];
        const double ex = v.x[l] - v.x[k], ey = v.y[l] - v.y[k];
        area += ax * ey - ay * ex;
        longest = max(longest, ex * ex + ey * ey);
    }
    v.orientation = area < 0 ? -1.0 : 1.0;
    if (abs(area) > 8 * epsilon * longest) return;
    double terms = 0;
    for (int k = 0; k < v.n; ++k) {
        const int l = k + 1 == v.n ? 0 : k + 1;
        terms += abs(v.x[k] * (v.y[l] - v.y[k])) + abs(v.y[k] * (v.x[l] - v.x[k]));
    }
    if (!(abs(area) > 8 * epsilon * terms)) v.n = 0;
}

GEODIFF_HD void make_view(const Polygon<double>& p, double epsilon, View& v) {
    v.n = p.n;
    v.orientation = p.orientation;
    for (int k = 0; k < p.n; ++k) {
        v.x[k] = p.x[k];
        v.y[k] = p.y[k];
        const int from = p.from[k], to = p.to[k];
        const int after = from == 2 ? 0 : from + 1;
        // A corner begins its side; a cut where the boundary comes back into view lies on the side of its hidden end.
        v.side[k] = static_cast<signed char>(from == to ? from : (to == after ? -1 : to));
    }
    orient(v, epsilon);
}

GEODIFF_HD View clipped_view(const Clip<double> corner[3], double near, double epsilon) {
    View v;
    make_view(make_polygon(corner, near), epsilon, v);
    return v;
}

// Edge functions that two neighbours evaluate from the same numbers, so that no point falls between them; see hard.h.
struct Lines {
    double ax[4], ay[4], ex[4], ey[4];
    int n;
};

GEODIFF_HD Lines make_lines(const View& v) {
    Lines out;
    out.n = v.n;
    for (int k = 0; k < v.n; ++k) {
        const int l = k + 1 == v.n ? 0 : k + 1;
        const bool swap = comes_first(v.x, v.y, l, k);
        const int s = swap ? l : k, t = swap ? k : l;
        const double sign = swap ? -v.orientation : v.orientation;
        out.ax[k] = v.x[s];
        out.ay[k] = v.y[s];
        out.ex[k] = (v.x[t] - v.x[s]) * sign;
        out.ey[k] = (v.y[t] - v.y[s]) * sign;
        if (only_rounding(v.x, v.y, v.n, k, l)) out.ex[k] = out.ey[k] = 0;
    }
    return out;
}

GEODIFF_HD bool covers(const Lines& f, double x, double y) {
    bool inside = true;
    for (int k = 0; k < f.n; ++k) inside = inside && f.ex[k] * (y - f.ay[k]) >= f.ey[k] * (x - f.ax[k]);
    return inside;
}

// False for an edge without length.
GEODIFF_HD bool make_segment(const View& v, int k, int code, double push, Segment& s) {
    const int l = k + 1 == v.n ? 0 : k + 1;
    s.ax = v.x[k];
    s.ay = v.y[k];
    s.ex = v.x[l] - v.x[k];
    s.ey = v.y[l] - v.y[k];
    if (only_rounding(v.x, v.y, v.n, k, l)) return false;
    s.length = sqrt(s.ex * s.ex + s.ey * s.ey);
    if (!(s.length > 0)) return false;  // its square underflows
    s.nx = s.ey / s.length * v.orientation;
    s.ny = -s.ex / s.length * v.orientation;
    const double size = max(max(abs(v.x[k]), abs(v.y[k])), max(abs(v.x[l]), abs(v.y[l])));
    s.step = push * max(size, 1.0);
    s.low = 0;
    s.high = 1;
    s.code = code;
    s.image = 0;
    return true;
}

// Keeps the part of a segment within a rectangle (Liang and Barsky); false if there is none.
GEODIFF_HD bool crop(Segment& s, double left, double right, double bottom, double top) {
    const double p[4] = {-s.ex, s.ex, -s.ey, s.ey};
    const double q[4] = {s.ax - left, right - s.ax, s.ay - bottom, top - s.ay};
    for (int i = 0; i < 4; ++i) {
        if (p[i] == 0) {
            if (q[i] < 0) return false;
        } else if (p[i] < 0) {
            s.low = max(s.low, q[i] / p[i]);
        } else {
            s.high = min(s.high, q[i] / p[i]);
        }
    }
    return s.low < s.high;
}

// Whether all of f lies on one side of e's line, farther than either may touch the other: then they do not meet.
GEODIFF_HD bool apart(const Segment& e, const Segment& f) {
    const double dx = f.ax - e.ax, dy = f.ay - e.ay;
    const double first = e.ex * dy - e.ey * dx, second = first + (e.ex * f.ey - e.ey * f.ex);
    const double margin = 4 * max(e.step, f.step) * e.length;
    return min(first, second) > margin || max(first, second) < -margin;
}

// Where two segments cross: t on e, s on f. Neighbours that share an end do not.
GEODIFF_HD bool crossing(const Segment& e, const Segment& f, double& t, double& s) {
    const double area = e.ex * f.ey - e.ey * f.ex;
    const double dx = f.ax - e.ax, dy = f.ay - e.ay;
    t = (dx * f.ey - dy * f.ex) / area;
    s = (dx * e.ey - dy * e.ex) / area;
    if (!(t >= 0 && t <= 1 && s >= 0 && s <= 1)) return false;
    const double ebx = e.ax + e.ex, eby = e.ay + e.ey, fbx = f.ax + f.ex, fby = f.ay + f.ey;
    const bool shared = (e.ax == f.ax && e.ay == f.ay) || (e.ax == fbx && e.ay == fby) ||
                        (ebx == f.ax && eby == f.ay) || (ebx == fbx && eby == fby);
    return !shared;
}

// Whether the end (x, y) of another segment lies on e, but not at its ends; t says where.
GEODIFF_HD bool touches(const Segment& e, double x, double y, double& t) {
    const double dx = x - e.ax, dy = y - e.ay;
    t = (dx * e.ex + dy * e.ey) / (e.length * e.length);
    const double margin = 2 * e.step / e.length;
    const double gx = dx - t * e.ex, gy = dy - t * e.ey;
    return t > margin && t < 1 - margin && gx * gx + gy * gy <= 4 * e.step * e.step;
}

GEODIFF_HD Piece make_piece(const Segment& s, int number, double low, double high, int first, int second) {
    return {s.ax, s.ay, s.ex, s.ey, 1 / (s.length * s.length), low, high, number, {first, second}};
}

GEODIFF_HD double along_piece(const Piece& p, double x, double y) {
    return clamp(((x - p.ax) * p.ex + (y - p.ay) * p.ey) * p.inverse, p.low, p.high);
}

GEODIFF_HD double distance2(const Piece& p, double x, double y) {
    const double t = along_piece(p, x, y);
    const double dx = x - p.ax - t * p.ex, dy = y - p.ay - t * p.ey;
    return dx * dx + dy * dy;
}

GEODIFF_HD int nearest_kind(const Piece& p, double t) {
    if (t > p.low && t < p.high) return kStrip;
    const int end = t <= p.low ? p.ends[0] : p.ends[1];
    return end >= 0 ? end : kPoint;
}

// Gradient of the ends of a segment.
struct EndGradient {
    double ax, ay, bx, by;
};

// ∂d/∂(ends of e) for a nearest point on e, at `along`. Inside of a piece: the outward normal, also where d = 0. At an
// end: towards the pixel, or away from it if that is inside (envelope theorem: sliding along e changes nothing).
GEODIFF_HD EndGradient point_gradient(const View& v, int k, int kind, double along, double x, double y, bool inside) {
    const int l = k + 1 == v.n ? 0 : k + 1;
    const double ex = v.x[l] - v.x[k], ey = v.y[l] - v.y[k];
    const double scale = v.orientation / sqrt(ex * ex + ey * ey);
    double gx = ey * scale, gy = -ex * scale;
    if (kind == kPoint) {
        const double dx = x - v.x[k] - along * ex, dy = y - v.y[k] - along * ey;
        const double size = sqrt(dx * dx + dy * dy);
        if (size > 0) {
            gx = (inside ? -dx : dx) / size;
            gy = (inside ? -dy : dy) / size;
        }
    }
    return {(1 - along) * gx, (1 - along) * gy, along * gx, along * gy};
}

// The same where e and f cross at X: moved by v, the line of e takes X along f by (v·m)/(F·m)·F, m normal to e.
GEODIFF_HD void crossing_gradient(const View& v, int k, const View& w, int j, double x, double y, bool inside,
                                  EndGradient& to_e, EndGradient& to_f) {
    const int l = k + 1 == v.n ? 0 : k + 1, i = j + 1 == w.n ? 0 : j + 1;
    const double ex = v.x[l] - v.x[k], ey = v.y[l] - v.y[k];
    const double fx = w.x[i] - w.x[j], fy = w.y[i] - w.y[j];
    const double dx = w.x[j] - v.x[k], dy = w.y[j] - v.y[k];
    const double area = ex * fy - ey * fx;
    const double t = (dx * fy - dy * fx) / area, s = (dx * ey - dy * ex) / area;
    double gx = x - v.x[k] - t * ex, gy = y - v.y[k] - t * ey;
    const double size = sqrt(gx * gx + gy * gy);
    const double inverse = size > 0 ? (inside ? -1 : 1) / size : 0.0;
    gx *= inverse;
    gy *= inverse;
    const double by_e = (gx * fx + gy * fy) / -area, by_f = (gx * ex + gy * ey) / area;
    const double mx = ey * by_e, my = -ex * by_e, qx = fy * by_f, qy = -fx * by_f;
    to_e = {(1 - t) * mx, (1 - t) * my, t * mx, t * my};
    to_f = {(1 - s) * qx, (1 - s) * qy, s * qx, s * qy};
}

}  // namespace gd
