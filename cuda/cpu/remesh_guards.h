// SPDX-License-Identifier: Apache-2.0
// What an edit of a surface is held to: no face turns over, none becomes a sliver, and none meets others that met none.
#pragma once
#include <cstdint>

#include "crossings.h"
#include "remesh_source.h"

namespace geodiff {

struct RemeshOptions {
    int iterations;
    double crease;      // cosine of the angle between normals beyond which an edge is one; below −1: none is
    bool single;        // places are rounded to float
    bool guard;         // no new self-intersections
    int threads;
};

class RemeshGuards {
protected:
    RemeshGuards(Surface& surface, const RemeshOptions& options) : s_(surface), options_(options) {}

    static constexpr double kTurn = 0.5;  // least cosine between a face's normals before and after an edit

    Vec rounded(Vec x) const {
        if (options_.single)
            for (double& c : x.c) c = static_cast<double>(static_cast<float>(c));
        return x;
    }

    void rebuild() {
        std::vector<Box> boxes(s_.face.size(), Box::none());
        for (size_t f = 0; f < boxes.size(); ++f)
            if (s_.lives(int(f))) boxes[f] = box_of(s_.at, s_.face[f]);
        tree_.build(boxes);
        stamp_.assign(s_.face.size(), 0);
        round_ = 0;
    }

    Crossings crossings() const { return {s_.at, s_.id, s_.face, tree_, options_.threads}; }

    void mark_tangled(const Pairs& pairs) {
        tangled_.assign(s_.face.size(), 0);
        for (const auto& [f, g] : pairs) tangled_[size_t(f)] = tangled_[size_t(g)] = 1;
        before_ = pairs;
    }

    // How many pairs of one of these faces and one of the surface meet, those with a stamp left out; one suffices `enough`.
    // A face without area counts as one.
    int meetings(const std::vector<Face>& faces, bool enough) {
        mine_.clear();
        int count = 0;
        Box all = Box::none();
        for (const Face& face : faces) {
            const Corners corners = corners_of(s_.at, s_.id, face);
            if (corners.is_flat()) {
                ++count;
                continue;
            }
            mine_.push_back({corners, box_of(s_.at, face)});
            all.take(mine_.back().second);
        }
        if (mine_.empty() || (enough && count > 0)) return count;
        tree_.meeting(all, [&](int g) {
            if (!s_.lives(g) || stamp_[size_t(g)] == round_) return false;
            const Corners other = corners_of(s_.at, s_.id, s_.face[size_t(g)]);
            const Box& box = tree_.box(g);
            for (const auto& [corners, own] : mine_)
                count += own.meets(box) && triangles_meet(corners, other) && !other.is_flat();
            return enough && count > 0;
        });
        return count;
    }

    // Whether `fresh` faces in the place of others meet no more faces than those did.
    bool stays_clear(const std::vector<Face>& fresh, const std::vector<int>& old) {
        if (!options_.guard) return true;
        ++round_;
        bool tangled = false;
        for (int f : old) stamp_[size_t(f)] = round_, tangled |= tangled_[size_t(f)] != 0;
        int count = 0;
        for (size_t i = 1; i < fresh.size(); ++i) {
            const Corners mine = corners_of(s_.at, s_.id, fresh[i]);
            for (size_t j = 0; j < i; ++j) count += triangles_meet(mine, corners_of(s_.at, s_.id, fresh[j]));
        }
        if (count > 0 && !tangled) return false;
        count += meetings(fresh, !tangled);
        if (count == 0) return true;
        if (!tangled) return false;
        std::vector<Face> were;
        for (size_t i = 0; i < old.size(); ++i) {
            were.push_back(s_.face[size_t(old[i])]);
            const Corners mine = corners_of(s_.at, s_.id, were[i]);
            if (mine.is_flat()) {
                ++count;  // that `meetings` takes off
                continue;
            }
            for (size_t j = 0; j < i; ++j) {
                const Corners other = corners_of(s_.at, s_.id, were[j]);
                count -= !other.is_flat() && triangles_meet(mine, other);
            }
        }
        count -= meetings(were, false);
        if (count > 0) return false;
        for (int f : old) tangled_[size_t(f)] = 1;
        return true;
    }

    // Whether a face may take another's place: not turned over, and not a sliver where there was none. A sliver's own
    // normal says nothing, so that of its surroundings is asked.
    bool may_follow(const Face& fresh, const Face& old, const Vec& surroundings, double worst) const {
        const Vec n = s_.normal(fresh), own = s_.normal(old);
        const double quality = s_.quality(fresh);
        if (quality < 0.1 && quality < worst) return false;
        const Vec& was = s_.quality(old) > 1e-2 ? own : surroundings;
        const double both = std::sqrt(dot(n, n) * dot(was, was));
        return both > 0 && dot(n, was) > kTurn * both;
    }

    Surface& s_;
    const RemeshOptions options_;
    BoxTree tree_;                  // over the faces
    std::vector<long long> stamp_;  // of the faces that an edit replaces
    long long round_ = 0;
    std::vector<char> tangled_;     // faces that meet others
    std::vector<std::pair<Corners, Box>> mine_;
    Pairs before_;
};

}  // namespace geodiff
