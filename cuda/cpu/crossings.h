// SPDX-License-Identifier: Apache-2.0
// The pairs of faces of a mesh that meet elsewhere than in what they share.
#pragma once
#include <utility>
#include <vector>

#include "box_tree.h"
#include "intersect.h"
#include "parallel.h"
#include "remesh_surface.h"

namespace geodiff {

using Pairs = std::vector<std::pair<int, int>>;

inline Corners corners_of(const std::vector<Vec>& at, const std::vector<long long>& id, const Face& f) {
    Corners corners;
    for (size_t k = 0; k < 3; ++k) corners.at[k] = at[size_t(f[k])].c, corners.id[k] = id[size_t(f[k])];
    return corners;
}

inline Box box_of(const std::vector<Vec>& at, const Face& f) {
    Box box = Box::none();
    for (int v : f) box.take(at[size_t(v)].c);
    return box;
}

// Numbers for vertices, the same for those at one place.
inline std::vector<long long> places(const std::vector<Vec>& at) {
    std::vector<int> order(at.size());
    std::iota(order.begin(), order.end(), 0);
    const auto before = [&](int i, int j) {
        const double *a = at[size_t(i)].c, *b = at[size_t(j)].c;
        return a[0] != b[0] ? a[0] < b[0] : a[1] != b[1] ? a[1] < b[1] : a[2] != b[2] ? a[2] < b[2] : i < j;
    };
    std::sort(order.begin(), order.end(), before);
    std::vector<long long> id(at.size());
    for (size_t i = 0; i < order.size(); ++i) {
        const double *a = at[size_t(order[i])].c, *b = i > 0 ? at[size_t(order[i - 1])].c : nullptr;
        const bool same = b && a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
        id[size_t(order[i])] = same ? id[size_t(order[i - 1])] : order[i];
    }
    return id;
}

// Searches for them. The tree is over the faces; those without area are none's pair.
class Crossings {
public:
    Crossings(const std::vector<Vec>& at, const std::vector<long long>& id, const std::vector<Face>& faces,
              const BoxTree& tree, int threads)
        : at_(at), id_(id), faces_(faces), tree_(tree), threads_(threads) {}

    // All, the lower face first, in ascending order, whatever the number of threads.
    Pairs all() const {
        const std::vector<BoxTree::Part> parts = tree_.parts();
        return gathered(static_cast<long long>(parts.size()), 1, [&](int i, Pairs& own) {
            tree_.pairs(parts[size_t(i)], [&](int f, int g) { look(f, g, own); });
        });
    }

    // Those of some faces, alike.
    Pairs of(const std::vector<int>& some) const {
        Pairs pairs = gathered(static_cast<long long>(some.size()), kFaces, [&](int i, Pairs& own) {
            const int f = some[size_t(i)];
            tree_.meeting(tree_.box(f), [&](int g) {
                if (f != g) look(f, g, own);
                return false;
            });
        });
        pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
        return pairs;
    }

private:
    static constexpr long long kFaces = 256;  // that a thread takes at a time

    template <class Body>
    Pairs gathered(long long count, long long each, Body&& body) const {
        const long long blocks = (count + each - 1) / each;
        std::vector<Pairs> found(static_cast<size_t>(blocks));
        parallel(blocks, threads_, [&](long long block) {
            for (long long i = block * each; i < std::min(count, (block + 1) * each); ++i)
                body(int(i), found[size_t(block)]);
        });
        Pairs all;
        for (const Pairs& own : found) all.insert(all.end(), own.begin(), own.end());
        std::sort(all.begin(), all.end());
        return all;
    }

    void look(int f, int g, Pairs& out) const {
        if (faces_[size_t(f)][0] < 0 || faces_[size_t(g)][0] < 0) return;
        const Corners a = corners_of(at_, id_, faces_[size_t(f)]), b = corners_of(at_, id_, faces_[size_t(g)]);
        if (triangles_meet(a, b) && !a.is_flat() && !b.is_flat()) out.push_back({std::min(f, g), std::max(f, g)});
    }

    const std::vector<Vec>& at_;
    const std::vector<long long>& id_;
    const std::vector<Face>& faces_;
    const BoxTree& tree_;
    const int threads_;
};

}  // namespace geodiff
