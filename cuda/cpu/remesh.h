// SPDX-License-Identifier: Apache-2.0
// Isotropic remeshing: long edges are split, short ones collapsed, others flipped, and vertices moved along the surface
// (Botsch and Kobbelt, "A remeshing approach to multiresolution modeling", 2004). One edit at a time and always in the
// same order; threads serve where vertices or faces do not depend on each other.
#pragma once
#include "remesh_guards.h"

namespace geodiff {

class Remesher : RemeshGuards {
public:
    // The surface, whose sides have been marked, its source, its curves, and the wanted lengths of edges there.
    Remesher(Surface& surface, const Source& source, const Curves& curves, const std::vector<double>& sizes,
             const RemeshOptions& options)
        : RemeshGuards(surface, options), source_(source), curves_(curves), sizes_(sizes) {}

    void run() {
        rebuild();
        if (options_.guard) mark_tangled(crossings().all());
        for (int i = 0; i < options_.iterations; ++i) {
            split_long();
            collapse_short();
            flip(true);
            relax();
        }
        flip(false);
        flip(false);
        remove_slivers();
    }

    int64_t splits = 0, collapses = 0, flips = 0;

private:
    static constexpr double kLong = 4.0 / 3, kShort = 4.0 / 5;
    static constexpr double kBend = 0.7071;     // and between the sides of a curve at a vertex that may go
    static constexpr double kDeviation = 0.1;   // how far, in edges, a curve may be cut short there
    static constexpr double kGood = 0.94;       // cosine of an angle (20°) that flips for valence may not go below
    static constexpr double kSliver = 0.966;    // of one (15°) that is mended at the end
    static constexpr double kFine = 32;         // edges of fewer roundings of their coordinates are not split
    static constexpr double kStill = 0.02;      // steps of a vertex that are shorter, in edges, are not taken
    static constexpr long long kBlock = 256;

    struct Edge {
        double length;
        int a, b;
    };

    // --- split

    std::vector<Edge> edges(double low, double high) const {
        std::vector<Edge> found;
        for (int f = 0; f < int(s_.face.size()); ++f) {
            if (!s_.lives(f)) continue;
            for (size_t k = 0; k < 3; ++k) {
                if (s_.side[size_t(f)][k] == kUntouchable) continue;
                const int a = s_.face[size_t(f)][(k + 1) % 3], b = s_.face[size_t(f)][(k + 2) % 3];
                const double length = s_.distance(a, b), wanted = s_.wanted(a, b);
                if (!(length > low * wanted && length < high * wanted)) continue;
                int faces[2];
                if (s_.faces_at(a, b, faces, 2) == 2 && faces[0] != f) continue;  // each once
                found.push_back({length, std::min(a, b), std::max(a, b)});
            }
        }
        return found;
    }

    void split_long() {
        for (int round = 0; round < 32; ++round) {
            std::vector<Edge> found = edges(kLong, std::numeric_limits<double>::infinity());
            std::sort(found.begin(), found.end(), [](const Edge& p, const Edge& q) {
                return p.length != q.length ? p.length > q.length : p.a != q.a ? p.a < q.a : p.b < q.b;
            });
            bool any = false;
            for (const Edge& e : found) any |= split(e.a, e.b);
            if (!any) break;
        }
    }

    bool split(int a, int b) {
        int faces[2];
        const int count = s_.faces_at(a, b, faces, 2);
        if (count < 1 || count > 2) return false;
        for (int i = 0; i < count; ++i)
            if (options_.guard && tangled_[size_t(faces[i])]) return false;  // there would be more pairs
        const Vec middle = rounded(s_.at[size_t(a)] * 0.5 + s_.at[size_t(b)] * 0.5);
        double largest = 0;
        for (double c : middle.c) largest = std::max(largest, std::abs(c));
        if (s_.distance(a, b) <= kFine * (options_.single ? 1.2e-7 : 2.3e-16) * largest) return false;
        if (!may_split(faces, count, a, b, middle)) return false;
        const size_t before = s_.face.size();
        s_.split(a, b, middle);
        for (int i = 0; i < count; ++i) tree_.move(faces[i], box_of(s_.at, s_.face[size_t(faces[i])]));
        for (size_t f = before; f < s_.face.size(); ++f)
            tree_.add(faces[f - before], box_of(s_.at, s_.face[f]));
        stamp_.resize(s_.face.size(), 0);
        tangled_.resize(s_.face.size(), 0);
        ++splits;
        return true;
    }

    // Not where another side, which may not be split, is much longer: that would make slivers; nor where the middle's
    // rounding turns a sliver over or into others.
    bool may_split(const int* faces, int count, int a, int b, const Vec& middle) {
        const int m = int(s_.at.size());
        bool thin = false;
        fresh_.clear();
        old_.assign(faces, faces + count);
        s_.at.push_back(middle);
        s_.id.push_back(-1 - m);
        bool sound = true;
        for (int f : old_) {
            const Face& face = s_.face[size_t(f)];
            double longest = 0;
            for (size_t k = 0; k < 3; ++k) longest = std::max(longest, s_.distance(face[k], face[(k + 1) % 3]));
            const bool is_longest = s_.distance(a, b) > 0.9 * longest;
            for (int end : {a, b}) {
                Face half = face;
                half[size_t(Surface::corner(face, end))] = m;
                const double quality = s_.quality(half);
                sound &= is_longest || quality > 0.2;
                thin |= quality < 0.02;
                sound &= dot(s_.normal(half), s_.normal(face)) >= 0;
                fresh_.push_back(half);
            }
        }
        if (sound && thin) sound = stays_clear(fresh_, old_);
        s_.at.pop_back();
        s_.id.pop_back();
        return sound;
    }

    // --- collapse

    void collapse_short() {
        std::vector<Edge> found = edges(-1.0, kShort);
        std::sort(found.begin(), found.end(), [](const Edge& p, const Edge& q) {
            return p.length != q.length ? p.length < q.length : p.a != q.a ? p.a < q.a : p.b < q.b;
        });
        for (const Edge& e : found) {
            if (!s_.has_edge(e.a, e.b) || !(s_.distance(e.a, e.b) < kShort * s_.wanted(e.a, e.b))) continue;
            const bool first = s_.around(e.a).size() <= s_.around(e.b).size();
            if (!collapse(first ? e.a : e.b, first ? e.b : e.a, kLong)) collapse(first ? e.b : e.a, first ? e.a : e.b, kLong);
        }
    }

    void neighbours(int v, std::vector<int>& out) const {
        out.clear();
        for (int f : s_.around(v))
            for (int w : s_.face[size_t(f)])
                if (w != v) out.push_back(w);
        std::sort(out.begin(), out.end());
        out.erase(std::unique(out.begin(), out.end()), out.end());
    }

    // The two neighbours of a vertex along its curve.
    bool along(int v, int* ends) const {
        int count = 0;
        for (int f : s_.around(v)) {
            const Face& face = s_.face[size_t(f)];
            for (size_t k = 0; k < 3; ++k) {
                if (face[k] == v || s_.side[size_t(f)][k] == kPlain) continue;
                const int w = face[(k + 1) % 3] == v ? face[(k + 2) % 3] : face[(k + 1) % 3];
                if (count > 0 && ends[0] == w) continue;
                if (count > 1 && ends[1] == w) continue;
                if (count == 2) return false;
                ends[count++] = w;
            }
        }
        return count == 2;
    }

    // Moves u onto v, if the mesh stays one and keeps its shape, and no edge gets longer than `most` of what is wanted.
    bool collapse(int u, int v, double most) {
        if (s_.kind[size_t(u)] == kFixed) return false;
        int faces[2];
        const int count = s_.faces_at(u, v, faces, 2);
        if (count < 1 || count > 2) return false;
        const Side own = s_.side_at(faces[0], u, v);
        if (own == kUntouchable) return false;
        if (s_.kind[size_t(u)] == kOnCurve) {
            int ends[2];
            if (own != kCurve || !along(u, ends)) return false;
            const Vec &x = s_.at[size_t(u)], &end = s_.at[size_t(v)], &other = s_.at[size_t(ends[0] == v ? ends[1] : ends[0])];
            const Vec in = x - other, out = end - x, all = end - other;
            if (!(dot(in, out) > kBend * length(in) * length(out))) return false;
            if (!(length(cross(in, all)) <= kDeviation * s_.wanted(u, v) * length(all))) return false;
        }
        // The link condition: u and v have no neighbours in common but the third corners at their edge.
        neighbours(u, near_u_);
        neighbours(v, near_v_);
        int thirds[2] = {-1, -1};
        for (int i = 0; i < count; ++i)
            for (int w : s_.face[size_t(faces[i])])
                if (w != u && w != v) thirds[i] = w;
        for (int w : near_u_) {
            if (w == v) continue;
            if (s_.distance(w, v) > most * s_.wanted(w, v)) return false;
            if (w != thirds[0] && w != thirds[1] && std::binary_search(near_v_.begin(), near_v_.end(), w)) return false;
        }
        for (int i = 0; i < count; ++i) {
            const int w = thirds[i];
            if (s_.around(w).size() < (s_.on_border[size_t(w)] ? 2u : 4u)) return false;
            if (s_.kind[size_t(u)] == kOnCurve && s_.side_at(faces[i], u, w) != kPlain) return false;
        }
        if (count == 2 && thirds[0] == thirds[1]) return false;
        fresh_.clear();
        old_.clear();
        const Vec surroundings = s_.normal_at(u);
        double worst = 1;
        for (int f : s_.around(u)) worst = std::min(worst, s_.quality(s_.face[size_t(f)]));
        for (int f : s_.around(u)) {
            old_.push_back(f);
            const Face& face = s_.face[size_t(f)];
            if (Surface::corner(face, v) >= 0) continue;
            Face moved = face;
            moved[size_t(Surface::corner(face, u))] = v;
            int third = 0;
            for (int w : face) third += w == thirds[0] || w == thirds[1];
            if (third == 2) return false;  // v has that face already
            if (!may_follow(moved, face, surroundings, worst)) return false;
            fresh_.push_back(moved);
        }
        if (fresh_.empty() || !stays_clear(fresh_, old_)) return false;
        s_.collapse(u, v);
        for (int f : old_) settle(f);
        ++collapses;
        return true;
    }

    void settle(int f) {
        if (s_.lives(f)) tree_.move(f, box_of(s_.at, s_.face[size_t(f)]));
    }

    // --- flip

    int deviation(int v, int change) const {
        const int off = int(s_.around(v).size()) + change - (s_.on_border[size_t(v)] ? 3 : 6);
        return off * off;
    }

    // For valence, as far as angles allow; or for the smallest angle alone.
    void flip(bool for_valence) {
        for (int f = 0; f < int(s_.face.size()); ++f) {
            if (!s_.lives(f)) continue;
            for (size_t k = 0; k < 3; ++k) {
                const int a = s_.face[size_t(f)][(k + 1) % 3], b = s_.face[size_t(f)][(k + 2) % 3];
                if (s_.side[size_t(f)][k] != kPlain) continue;
                int faces[2];
                if (s_.faces_at(a, b, faces, 2) != 2 || faces[0] != f) continue;
                flip(f, faces[1], a, b, for_valence);
            }
        }
    }

    bool flip(int f, int g, int a, int b, bool for_valence) {
        const Face old_f = s_.face[size_t(f)], old_g = s_.face[size_t(g)];
        int c = -1, d = -1;
        for (int w : old_f)
            if (w != a && w != b) c = w;
        for (int w : old_g)
            if (w != a && w != b) d = w;
        if (c == d || c < 0 || d < 0) return false;
        const int gain = deviation(a, 0) + deviation(b, 0) + deviation(c, 0) + deviation(d, 0) - deviation(a, -1) -
                         deviation(b, -1) - deviation(c, 1) - deviation(d, 1);
        if (for_valence && gain < 0) return false;
        for (int v : {a, b})
            if (s_.around(v).size() < (s_.on_border[size_t(v)] ? 2u : 4u)) return false;
        Face new_f = old_f, new_g = old_g;
        new_f[size_t(Surface::corner(old_f, b))] = d;
        new_g[size_t(Surface::corner(old_g, a))] = c;
        const double before = std::max(s_.sharpest(old_f), s_.sharpest(old_g));
        const double after = std::max(s_.sharpest(new_f), s_.sharpest(new_g));
        const bool better = after < before - 1e-6;
        if (for_valence && gain > 0 ? after > std::max(before, kGood) : !better) return false;
        if (s_.has_edge(c, d)) return false;
        const Vec both = s_.normal(old_f) + s_.normal(old_g);
        const double worst = std::min(s_.quality(old_f), s_.quality(old_g));
        for (const Face& fresh : {new_f, new_g})
            if (!may_follow(fresh, old_f, both, worst) || !may_follow(fresh, old_g, both, worst)) return false;
        fresh_ = {new_f, new_g};
        old_ = {f, g};
        if (!stays_clear(fresh_, old_)) return false;
        s_.flip(f, g, a, b);
        settle(f), settle(g);
        ++flips;
        return true;
    }

    // --- relax

    template <class Body>
    void each(long long count, Body&& body) const {
        parallel((count + kBlock - 1) / kBlock, options_.threads, [&](long long block) {
            for (long long i = block * kBlock; i < std::min(count, (block + 1) * kBlock); ++i) body(int(i));
        });
    }

    // Where a vertex would be better: at the middle of its surroundings, along the surface, and back on the input.
    bool better_place(int v, Place& place) const {
        const Vec& x = s_.at[size_t(v)];
        const auto& faces = s_.around(v);
        if (faces.empty() || s_.kind[size_t(v)] == kFixed) return false;
        const Vec n = s_.normal_at(v);
        if (!(dot(n, n) > 0)) return false;
        Vec goal = x;
        if (s_.kind[size_t(v)] == kOnCurve) {
            int ends[2];
            if (!along(v, ends)) return false;
            goal = curves_.nearest((s_.at[size_t(ends[0])] + s_.at[size_t(ends[1])]) * 0.5);
        } else {
            Vec sum{{0, 0, 0}};
            double weight = 0;
            for (int f : faces) {
                const Face& face = s_.face[size_t(f)];
                const double size = s_.size[size_t(face[0])] + s_.size[size_t(face[1])] + s_.size[size_t(face[2])];
                const double own = length(s_.normal(face)) / (size * size);
                sum = sum + (s_.at[size_t(face[0])] + s_.at[size_t(face[1])] + s_.at[size_t(face[2])]) * (own / 3);
                weight += own;
            }
            if (!(weight > 0)) return false;
            const Vec step = sum * (1 / weight) - x;
            const Vec aside = step - n * (dot(n, step) / dot(n, n));
            if (settled_[size_t(v)] && length(aside) < kStill * s_.size[size_t(v)]) return false;
            goal = x + aside;
        }
        place = source_.nearest(goal, n, s_.source[size_t(v)]);
        if (place.face < 0) return false;
        if (s_.kind[size_t(v)] == kOnCurve) place.point = goal;
        place.point = rounded(place.point);
        return length(place.point - x) <= s_.size[size_t(v)];
    }

    void relax() {
        const long long vertices = static_cast<long long>(s_.at.size()), count = static_cast<long long>(s_.face.size());
        std::vector<Place> places(s_.at.size());
        std::vector<char> moves(s_.at.size());
        settled_.resize(s_.at.size(), 0);
        each(vertices, [&](int v) { moves[size_t(v)] = better_place(v, places[size_t(v)]); });
        const std::vector<Vec> before = s_.at;
        for (size_t v = 0; v < moves.size(); ++v)
            if (moves[v]) s_.at[v] = places[v].point;
        // What turns a face over, spoils it or makes surfaces meet goes back, until nothing does.
        std::vector<char> bad(s_.face.size());
        const auto back = [&](int f) {
            bool any = false;
            for (int v : s_.face[size_t(f)]) any |= moves[size_t(v)] != 0, moves[size_t(v)] = 0, s_.at[size_t(v)] = before[size_t(v)];
            return any;
        };
        const auto upright = [&] {
            for (bool any = true; any;) {
                any = false;
                each(count, [&](int f) { bad[size_t(f)] = s_.lives(f) && is_spoilt(s_.face[size_t(f)], before, moves); });
                for (int f = 0; f < int(count); ++f)
                    if (bad[size_t(f)]) any |= back(f);
            }
        };
        upright();
        rebuild();
        if (options_.guard) {
            Pairs pairs = crossings().all();
            for (bool any = true; any;) {
                any = false;
                const std::vector<char> moved = moves;
                for (const auto& [f, g] : pairs)
                    if (!std::binary_search(before_.begin(), before_.end(), std::make_pair(f, g))) any |= back(f) | back(g);
                if (!any) break;
                upright();
                update(pairs, moved, moves);
            }
            mark_tangled(pairs);
        }
        for (size_t v = 0; v < moves.size(); ++v) {
            if (!moves[v]) continue;
            settled_[v] = 1;
            s_.source[v] = places[v].face;
            const Face& face = source_.face(places[v].face);
            double size = 0;
            for (size_t k = 0; k < 3; ++k) size += places[v].weight[k] * sizes_[size_t(face[k])];
            s_.size[v] = size;
        }
    }

    // Looks again at the faces of which a vertex moved, and has gone back.
    void update(Pairs& pairs, const std::vector<char>& moved, const std::vector<char>& moves) {
        ++round_;
        old_.clear();
        for (int f = 0; f < int(s_.face.size()); ++f) {
            if (!s_.lives(f)) continue;
            bool changed = false;
            for (int v : s_.face[size_t(f)]) changed |= moved[size_t(v)] != moves[size_t(v)];
            if (!changed) continue;
            tree_.move(f, box_of(s_.at, s_.face[size_t(f)]));
            stamp_[size_t(f)] = round_;
            old_.push_back(f);
        }
        const auto is_old = [&](const std::pair<int, int>& p) {
            return stamp_[size_t(p.first)] == round_ || stamp_[size_t(p.second)] == round_;
        };
        pairs.erase(std::remove_if(pairs.begin(), pairs.end(), is_old), pairs.end());
        const Pairs more = crossings().of(old_);
        pairs.insert(pairs.end(), more.begin(), more.end());
        std::sort(pairs.begin(), pairs.end());
    }

    bool is_spoilt(const Face& f, const std::vector<Vec>& before, const std::vector<char>& moves) const {
        if (!moves[size_t(f[0])] && !moves[size_t(f[1])] && !moves[size_t(f[2])]) return false;
        const Vec &a = before[size_t(f[0])], &b = before[size_t(f[1])], &c = before[size_t(f[2])];
        const Vec was = cross(b - a, c - a), is = s_.normal(f);
        const double both = std::sqrt(dot(was, was) * dot(is, is));
        if (!(both > 0) || !(dot(was, is) > kTurn * both)) return true;
        const double quality = s_.quality(f);
        if (quality > 0.3) return false;
        const Vec ab = b - a, bc = c - b, ca = a - c;
        const double sum = dot(ab, ab) + dot(bc, bc) + dot(ca, ca);
        return quality < 2 * std::sqrt(3.0) * length(was) / sum;
    }

    // What is still thin: its shortest side is collapsed, or its longest flipped.
    void remove_slivers() {
        for (int round = 0; round < 3; ++round) {
            for (int f = 0; f < int(s_.face.size()); ++f) {
                if (!s_.lives(f) || s_.sharpest(s_.face[size_t(f)]) < kSliver) continue;
                const Face face = s_.face[size_t(f)];
                size_t least = 0, most = 0;  // opposite to which corner
                const auto side = [&](size_t k) { return s_.distance(face[(k + 1) % 3], face[(k + 2) % 3]); };
                for (size_t k = 1; k < 3; ++k) {
                    if (side(k) < side(least)) least = k;
                    if (side(k) > side(most)) most = k;
                }
                const int a = face[(least + 1) % 3], b = face[(least + 2) % 3];
                if (collapse(a, b, 2.0) || collapse(b, a, 2.0)) continue;
                const int p = face[(most + 1) % 3], q = face[(most + 2) % 3];
                int faces[2];
                if (s_.side[size_t(f)][most] == kPlain && s_.faces_at(p, q, faces, 2) == 2)
                    flip(faces[0], faces[1], p, q, false);
            }
        }
    }

    const Source& source_;
    const Curves& curves_;
    const std::vector<double>& sizes_;
    std::vector<char> settled_;  // vertices that lie on the input
    std::vector<int> near_u_, near_v_, old_;
    std::vector<Face> fresh_;
};

}  // namespace geodiff
