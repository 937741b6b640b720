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

// In ascending order, the lower face first, whatever the number of threads. The tree is over the faces; those without
// area are none's pair.
inline Pairs crossings(const std::vector<Vec>& at, const std::vector<long long>& id, const std::vector<Face>& faces,
                       const BoxTree& tree, int threads) {
    constexpr long long kBlock = 256;
    const long long count = static_cast<long long>(faces.size()), blocks = (count + kBlock - 1) / kBlock;
    std::vector<char> flat(faces.size(), 1);
    parallel(blocks, threads, [&](long long block) {
        for (long long f = block * kBlock; f < std::min(count, (block + 1) * kBlock); ++f)
            if (faces[size_t(f)][0] >= 0) flat[size_t(f)] = corners_of(at, id, faces[size_t(f)]).is_flat();
    });
    std::vector<Pairs> found(static_cast<size_t>(blocks));
    parallel(blocks, threads, [&](long long block) {
        Pairs& own = found[size_t(block)];
        for (int f = int(block * kBlock); f < std::min(count, (block + 1) * kBlock); ++f) {
            if (flat[size_t(f)]) continue;
            const Corners mine = corners_of(at, id, faces[size_t(f)]);
            const size_t first = own.size();
            tree.meeting(tree.box(f), [&](int g) {
                if (g > f && !flat[size_t(g)] && triangles_meet(mine, corners_of(at, id, faces[size_t(g)])))
                    own.push_back({f, g});
                return false;
            });
            std::sort(own.begin() + Pairs::difference_type(first), own.end());
        }
    });
    Pairs all;
    for (const Pairs& own : found) all.insert(all.end(), own.begin(), own.end());
    return all;
}

}  // namespace geodiff
