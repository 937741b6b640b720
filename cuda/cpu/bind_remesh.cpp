// SPDX-License-Identifier: Apache-2.0
// Remeshing, and the faces of a mesh that meet. In double, and compiled once for all SIMD levels, so that every machine
// makes the same mesh. Arguments are checked in geodiff/scene; coordinates have been scaled to lengths near 1.
#include <memory>

#include "bindings.h"
#include "remesh.h"

namespace geodiff {
namespace {

using Points = Array<const double, 2>;
using Triangles = Array<const int64_t, 2>;

std::vector<Vec> read_points(const Points& points) {
    std::vector<Vec> at(points.shape(0));
    for (size_t v = 0; v < at.size(); ++v)
        for (size_t k = 0; k < 3; ++k) at[v].c[k] = points.data()[3 * v + k];
    return at;
}

Face read_face(const Triangles& faces, size_t f) {
    Face face;
    for (size_t k = 0; k < 3; ++k) face[k] = int(faces.data()[3 * f + k]);
    return face;
}

nb::tuple self_intersections(Points points, Triangles faces, int threads) {
    std::vector<int64_t> out;
    {
        nb::gil_scoped_release release;
        const std::vector<Vec> at = read_points(points);
        std::vector<Face> own(faces.shape(0));
        std::vector<Box> boxes(own.size());
        for (size_t f = 0; f < own.size(); ++f) own[f] = read_face(faces, f), boxes[f] = box_of(at, own[f]);
        BoxTree tree;
        tree.build(boxes);
        const std::vector<long long> id = places(at);
        for (const auto& [f, g] : Crossings(at, id, own, tree, threads).all()) out.insert(out.end(), {f, g});
    }
    const size_t count = out.size() / 2;
    return nb::make_tuple(handed(std::move(out), {count, 2}));
}

// The surface to work on: its sides and vertices are marked, and what may not be touched is told.
class Start {
public:
    Start(const Points& points, const Triangles& faces, const Array<const double, 1>& sizes, double crease) {
        surface.at = read_points(points);
        const size_t count = surface.at.size();
        surface.id = places(surface.at);
        surface.size.assign(sizes.data(), sizes.data() + count);
        surface.ring.resize(count);
        surface.kind.assign(count, kFree);
        surface.on_border.assign(count, 0);
        surface.source.assign(count, -1);
        odd.assign(count, 0);
        read_faces(faces);
        mark_sides(crease);
        mark_vertices();
    }

    Surface surface;
    std::vector<int> number;                   // of each face, in the input
    std::vector<std::array<int, 2>> curves;    // sides of borders and creases
    std::vector<char> odd;                     // vertices where the mesh is none of a surface

private:
    void read_faces(const Triangles& faces) {
        std::vector<std::pair<Face, int>> sorted;
        for (size_t f = 0; f < faces.shape(0); ++f) {
            Face key = read_face(faces, f);
            if (key[0] == key[1] || key[1] == key[2] || key[2] == key[0]) continue;
            std::sort(key.begin(), key.end());
            sorted.push_back({key, int(f)});
        }
        std::sort(sorted.begin(), sorted.end());
        for (size_t i = 0; i < sorted.size(); ++i)
            if (i == 0 || sorted[i].first != sorted[i - 1].first) number.push_back(sorted[i].second);
        std::sort(number.begin(), number.end());
        for (int f : number) {
            const int own = surface.add_face(read_face(faces, size_t(f)), {kPlain, kPlain, kPlain});
            for (int v : surface.face[size_t(own)]) surface.source[size_t(v)] = own;
        }
    }

    void mark_sides(double crease) {
        std::vector<std::array<int, 4>> sides;  // low end, high end, face, corner; the corner + 3 where it runs down
        for (int f = 0; f < int(surface.face.size()); ++f) {
            for (int k = 0; k < 3; ++k) {
                const int a = surface.face[size_t(f)][size_t(k + 1) % 3], b = surface.face[size_t(f)][size_t(k + 2) % 3];
                sides.push_back({std::min(a, b), std::max(a, b), f, a < b ? k : k + 3});
            }
        }
        std::sort(sides.begin(), sides.end());
        std::vector<char> twins(surface.at.size(), 0);  // whether there is another vertex at its place
        std::vector<int> used(surface.at.size(), 0);  // how many at each place
        for (size_t v = 0; v < surface.at.size(); ++v) used[size_t(surface.id[v])] += !surface.ring[v].empty();
        for (size_t v = 0; v < surface.at.size(); ++v) twins[v] = used[size_t(surface.id[v])] > 1;
        for (size_t i = 0, end; i < sides.size(); i = end) {
            const int a = sides[i][0], b = sides[i][1];
            for (end = i + 1; end < sides.size() && sides[end][0] == a && sides[end][1] == b;) ++end;
            Side own = kPlain;
            if (end - i == 1) {
                own = twins[size_t(a)] && twins[size_t(b)] ? kUntouchable : kCurve;
                surface.on_border[size_t(a)] = surface.on_border[size_t(b)] = 1;
            } else if (end - i > 2 || (sides[i][3] < 3) == (sides[i + 1][3] < 3)) {
                own = kUntouchable;
                odd[size_t(a)] = odd[size_t(b)] = 1;
            } else {
                const Vec n = surface.normal(surface.face[size_t(sides[i][2])]);
                const Vec m = surface.normal(surface.face[size_t(sides[i + 1][2])]);
                if (dot(n, m) < crease * std::sqrt(dot(n, n) * dot(m, m))) own = kCurve;
            }
            for (size_t j = i; j < end; ++j) surface.side[size_t(sides[j][2])][size_t(sides[j][3] % 3)] = own;
            if (own == kPlain) continue;
            curves.push_back({a, b});
            for (int v : {a, b}) {
                if (own == kUntouchable) surface.kind[size_t(v)] = kFixed;
                else if (surface.kind[size_t(v)] == kFree) surface.kind[size_t(v)] = kOnCurve;
            }
        }
        for (size_t v = 0; v < twins.size(); ++v)
            if (twins[v]) surface.kind[v] = kFixed;
    }

    void mark_vertices() {
        std::vector<std::vector<int>> ends(surface.at.size());
        for (const auto& [a, b] : curves) ends[size_t(a)].push_back(b), ends[size_t(b)].push_back(a);
        for (int v = 0; v < int(surface.at.size()); ++v) {
            if (is_pinched(v)) odd[size_t(v)] = 1, surface.kind[size_t(v)] = kFixed;
            if (surface.kind[size_t(v)] != kOnCurve) continue;
            const auto& own = ends[size_t(v)];
            bool smooth = own.size() == 2;
            if (smooth) {
                const Vec in = surface.at[size_t(v)] - surface.at[size_t(own[0])];
                const Vec out = surface.at[size_t(own[1])] - surface.at[size_t(v)];
                smooth = dot(in, out) > 0.7071 * length(in) * length(out);
            }
            if (!smooth) surface.kind[size_t(v)] = kFixed;  // a corner
        }
    }

    // Whether the faces at a vertex are several fans.
    bool is_pinched(int v) const {
        std::vector<int> left = surface.around(v);
        if (left.empty()) return false;
        std::vector<int> reached = {left.back()};
        left.pop_back();
        while (!reached.empty()) {
            const Face from = surface.face[size_t(reached.back())];
            reached.pop_back();
            for (size_t i = 0; i < left.size();) {
                int shared = 0;
                for (int w : surface.face[size_t(left[i])]) shared += Surface::corner(from, w) >= 0;
                if (shared < 2) {
                    ++i;
                    continue;
                }
                reached.push_back(left[i]);
                left[i] = left.back();
                left.pop_back();
            }
        }
        return !left.empty();
    }
};

nb::tuple remesh(Points points, Triangles faces, Array<const double, 1> sizes, int iterations, double crease,
                 bool single, bool guard, int threads) {
    std::vector<double> out_points, weights;
    std::vector<int64_t> out_faces, source, odd, counts;
    {
        nb::gil_scoped_release release;
        Start start(points, faces, sizes, crease);
        Surface& surface = start.surface;
        const std::vector<Vec> input = surface.at;
        const std::vector<Face> input_faces = surface.face;
        const std::vector<double> input_sizes = surface.size;
        const Source shape(input, input_faces);
        const Curves curves(input, start.curves);
        Remesher remesher(surface, shape, curves, input_sizes, {iterations, crease, single, guard, threads});
        remesher.run();
        counts = {remesher.splits, remesher.collapses, remesher.flips};

        std::vector<int> kept, number(surface.at.size(), -1);
        for (int v = 0; v < int(surface.at.size()); ++v) {
            if (surface.around(v).empty()) continue;
            number[size_t(v)] = int(kept.size());
            if (v < int(input.size()) && start.odd[size_t(v)]) odd.push_back(int64_t(kept.size()));
            kept.push_back(v);
            for (double c : surface.at[size_t(v)].c) out_points.push_back(c);
        }
        for (const Face& face : surface.face)
            if (face[0] >= 0)
                for (int v : face) out_faces.push_back(number[size_t(v)]);
        std::vector<Place> at(kept.size());
        const long long count = static_cast<long long>(kept.size());
        parallel((count + 255) / 256, threads, [&](long long block) {
            for (long long i = block * 256; i < std::min(count, (block + 1) * 256); ++i) {
                const int v = kept[size_t(i)];
                const Vec &x = surface.at[size_t(v)], none{{0, 0, 0}};
                at[size_t(i)] = shape.nearest(x, surface.normal_at(v), surface.source[size_t(v)]);
                if (at[size_t(i)].face < 0) at[size_t(i)] = shape.nearest(x, none, surface.source[size_t(v)]);
            }
        });
        for (const Place& place : at) {
            source.push_back(start.number[size_t(place.face)]);
            weights.insert(weights.end(), place.weight, place.weight + 3);
        }
    }
    const size_t n = source.size(), m = out_faces.size() / 3, k = odd.size();
    return nb::make_tuple(handed(std::move(out_points), {n, 3}), handed(std::move(out_faces), {m, 3}),
                          handed(std::move(source), {n}), handed(std::move(weights), {n, 3}), handed(std::move(odd), {k}),
                          handed(std::move(counts), {3}));
}

}  // namespace

void bind_remesh(nb::module_& m) {
    using namespace nb::literals;
    m.def("self_intersections", &self_intersections, nb::kw_only(), "points"_array, "faces"_array, "threads"_a = 1);
    m.def("remesh", &remesh, nb::kw_only(), "points"_array, "faces"_array, "sizes"_array, "iterations"_a, "crease"_a,
          "single"_a, "guard"_a, "threads"_a = 1);
}

}  // namespace geodiff
