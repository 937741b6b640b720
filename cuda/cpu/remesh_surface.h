// SPDX-License-Identifier: Apache-2.0
// A triangle mesh that changes: faces, the faces at each vertex, and the three edits that keep it a mesh.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace geodiff {

struct Vec {
    double c[3];

    Vec operator+(const Vec& o) const { return {{c[0] + o.c[0], c[1] + o.c[1], c[2] + o.c[2]}}; }
    Vec operator-(const Vec& o) const { return {{c[0] - o.c[0], c[1] - o.c[1], c[2] - o.c[2]}}; }
    Vec operator*(double s) const { return {{c[0] * s, c[1] * s, c[2] * s}}; }
};

inline double dot(const Vec& a, const Vec& b) { return a.c[0] * b.c[0] + a.c[1] * b.c[1] + a.c[2] * b.c[2]; }
inline Vec cross(const Vec& a, const Vec& b) {
    return {{a.c[1] * b.c[2] - a.c[2] * b.c[1], a.c[2] * b.c[0] - a.c[0] * b.c[2], a.c[0] * b.c[1] - a.c[1] * b.c[0]}};
}
inline double length(const Vec& a) { return std::sqrt(dot(a, a)); }

enum Kind : char { kFree, kOnCurve, kFixed };       // of vertices: on a curve means inside one, on a border or crease
enum Side : char { kPlain, kCurve, kUntouchable };  // of sides

using Face = std::array<int, 3>;

struct Surface {
    std::vector<Vec> at;
    std::vector<Kind> kind;
    std::vector<char> on_border;
    std::vector<double> size;    // wanted length of edges
    std::vector<int> source;     // a face of the input close by
    std::vector<long long> id;   // the same for vertices of the input at one place
    std::vector<std::vector<int>> ring;  // faces at each vertex

    std::vector<Face> face;                  // {−1, …} where there is none any more
    std::vector<std::array<Side, 3>> side;   // opposite to each corner

    bool lives(int f) const { return face[size_t(f)][0] >= 0; }
    static int corner(const Face& f, int v) { return f[0] == v ? 0 : f[1] == v ? 1 : f[2] == v ? 2 : -1; }
    int corner(int f, int v) const { return corner(face[size_t(f)], v); }
    const std::vector<int>& around(int v) const { return ring[size_t(v)]; }

    // Up to `most` faces at the edge ab, the lowest first; returns how many there are.
    int faces_at(int a, int b, int* out, int most) const {
        int count = 0;
        for (int f : around(a)) {
            if (corner(f, b) < 0) continue;
            if (count < most) out[count] = f;
            ++count;
        }
        if (count == 2 && most >= 2 && out[0] > out[1]) std::swap(out[0], out[1]);
        return count;
    }
    bool has_edge(int a, int b) const {
        int unused;
        return faces_at(a, b, &unused, 0) > 0;
    }
    Side side_at(int f, int a, int b) const {
        for (int k = 0; k < 3; ++k)
            if (face[size_t(f)][size_t(k)] != a && face[size_t(f)][size_t(k)] != b) return side[size_t(f)][size_t(k)];
        return kUntouchable;
    }
    double distance(int a, int b) const { return length(at[size_t(a)] - at[size_t(b)]); }
    double wanted(int a, int b) const { return 0.5 * (size[size_t(a)] + size[size_t(b)]); }

    Vec normal(const Face& f) const {  // twice as long as the area
        const Vec &a = at[size_t(f[0])], &b = at[size_t(f[1])], &c = at[size_t(f[2])];
        return cross(b - a, c - a);
    }
    Vec normal_at(int v) const {
        Vec sum{{0, 0, 0}};
        for (int f : around(v)) sum = sum + normal(face[size_t(f)]);
        return sum;
    }
    // 1 for an equilateral triangle, 0 for one without area.
    double quality(const Face& f) const {
        const Vec &a = at[size_t(f[0])], &b = at[size_t(f[1])], &c = at[size_t(f[2])];
        const Vec ab = b - a, bc = c - b, ca = a - c;
        const double sum = dot(ab, ab) + dot(bc, bc) + dot(ca, ca);
        return sum > 0 ? 2 * std::sqrt(3.0) * length(cross(ab, ca)) / sum : 0.0;
    }
    // The cosine of the smallest angle.
    double sharpest(const Face& f) const {
        double most = -1;
        for (size_t k = 0; k < 3; ++k) {
            const Vec u = at[size_t(f[(k + 1) % 3])] - at[size_t(f[k])], v = at[size_t(f[(k + 2) % 3])] - at[size_t(f[k])];
            const double size = std::sqrt(dot(u, u) * dot(v, v));
            most = std::max(most, size > 0 ? dot(u, v) / size : 1.0);
        }
        return most;
    }

    int add_face(const Face& corners, const std::array<Side, 3>& sides) {
        const int f = int(face.size());
        face.push_back(corners);
        side.push_back(sides);
        for (int v : corners) ring[size_t(v)].push_back(f);
        return f;
    }
    void leave(int v, int f) {
        auto& faces = ring[size_t(v)];
        faces.erase(std::find(faces.begin(), faces.end(), f));
    }
    void remove_face(int f) {
        for (int v : face[size_t(f)]) leave(v, f);
        face[size_t(f)] = {-1, -1, -1};
    }

    // Puts a vertex into the edge ab; face f of it becomes two, of which the second has the next number.
    int split(int a, int b, const Vec& place) {
        int faces[2];
        const int count = faces_at(a, b, faces, 2), m = int(at.size());
        const Side own = side_at(faces[0], a, b);
        at.push_back(place);
        kind.push_back(own == kPlain ? kFree : kOnCurve);
        on_border.push_back(count == 1);
        size.push_back(wanted(a, b));
        source.push_back(source[size_t(a)]);
        id.push_back(-1 - m);
        ring.emplace_back();
        ring.back().reserve(8);
        for (int i = 0; i < count; ++i) {
            const int f = faces[i];
            const size_t ka = size_t(corner(f, a)), kb = size_t(corner(f, b));
            Face second = face[size_t(f)];
            std::array<Side, 3> sides = side[size_t(f)];
            second[ka] = m;
            sides[kb] = kPlain;  // from m to c
            face[size_t(f)][kb] = m;
            side[size_t(f)][ka] = kPlain;
            leave(b, f);
            ring[size_t(m)].push_back(f);
            add_face(second, sides);
        }
        return m;
    }

    // Moves u onto v; their common faces go.
    void collapse(int u, int v) {
        const std::vector<int> faces = around(u);
        for (int f : faces) {
            const int kv = corner(f, v);
            if (kv < 0) continue;
            // The sides from u and from v to the third corner become one: its flag is that of the side from v.
            const size_t ku = size_t(corner(f, u)), kc = 3 - ku - size_t(kv);
            const int c = face[size_t(f)][kc];
            const Side kept = side[size_t(f)][ku];
            int other[2];
            const int count = faces_at(u, c, other, 2);
            for (int i = 0; i < std::min(count, 2); ++i) {
                if (other[i] == f) continue;
                const size_t k = 3 - size_t(corner(other[i], u)) - size_t(corner(other[i], c));
                side[size_t(other[i])][k] = kept;
            }
            remove_face(f);
        }
        for (int f : around(u)) {
            face[size_t(f)][size_t(corner(f, u))] = v;
            ring[size_t(v)].push_back(f);
        }
        ring[size_t(u)].clear();
    }

    // Turns the edge that faces f and g share: it then joins c and d, their third corners.
    void flip(int f, int g, int a, int b) {
        const size_t fa = size_t(corner(f, a)), fb = size_t(corner(f, b)), fc = 3 - fa - fb;
        const size_t ga = size_t(corner(g, a)), gb = size_t(corner(g, b)), gd = 3 - ga - gb;
        const int c = face[size_t(f)][fc], d = face[size_t(g)][gd];
        const Side bc = side[size_t(f)][fa], ad = side[size_t(g)][gb];
        // f loses b for d, g loses a for c; windings stay.
        face[size_t(f)][fb] = d;
        face[size_t(g)][ga] = c;
        side[size_t(f)][fa] = kPlain, side[size_t(f)][fc] = ad;
        side[size_t(g)][gb] = kPlain, side[size_t(g)][gd] = bc;
        leave(b, f), leave(a, g);
        ring[size_t(d)].push_back(f);
        ring[size_t(c)].push_back(g);
    }
};

}  // namespace geodiff
