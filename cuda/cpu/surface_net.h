// SPDX-License-Identifier: Apache-2.0
// The surface net of a grid of what is inside: the edges of the grid that the surface crosses, the cells around each, and
// the sheets of the surface in each cell, which are the net's vertices. Its twin, geodiff/reference/surface_net.py, says
// what is computed; here only how: a scan over layers of cells, blocks of layers in parallel, that counts, and a second
// one that writes to places which the counts fix. Nothing is rounded, and the result does not depend on the threads.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace geodiff {

struct SurfaceNet {
    std::vector<int64_t> inner, outer;   // (E,) nodes of the grid at the ends of crossed edges; −1 beyond it
    std::vector<int32_t> at;             // (E, 3) where the inner end is, in steps of the grid
    std::vector<int64_t> way;            // (E,) from the inner end along axis way / 2, forwards if it is odd
    std::vector<int64_t> around, quads;  // (E, 4) vertices: around the edge, and around it seen from outside
    std::vector<int64_t> doubtful;       // sides 4 e + k of quads on faces of the grid with four crossings
    int64_t vertices = 0;
};

class NetScan {
public:
    NetScan(const uint8_t* inside, const int64_t* shape, const uint8_t* sheets, int threads)
        : inside_(inside), sheets_(sheets), threads_(threads) {
        for (int a = 0; a < 3; ++a) n_[a] = shape[a];
        width_ = n_[2] + 2;
        layer_ = (n_[1] + 2) * width_;
        for (int pattern = 0; pattern < 256; ++pattern) {
            int most = -1;
            for (int edge = 0; edge < 12; ++edge)
                if (crossed(pattern, edge)) most = sheets[12 * pattern + edge] > most ? sheets[12 * pattern + edge] : most;
            number_[pattern] = most + 1;
        }
    }

    SurfaceNet run() {
        const int64_t cells = n_[0] + 1, blocks = (cells + kBlock - 1) / kBlock;
        std::vector<int64_t> of_layer(size_t(4 * (cells + 1)), 0);  // edges by axis, then vertices
        parallel(blocks, threads_, [&](long long b) { count(b * kBlock, end_of(b), of_layer.data()); });
        int64_t* vertices = of_layer.data() + 3 * (cells + 1);
        int64_t edges = 0;
        for (int64_t i = 0; i < 3 * (cells + 1); ++i) edges += exchange(of_layer[size_t(i)], edges);
        SurfaceNet net;
        for (int64_t i = 0; i <= cells; ++i) net.vertices += exchange(vertices[i], net.vertices);
        const size_t count = size_t(edges);
        net.inner.resize(count), net.outer.resize(count), net.way.resize(count), net.at.resize(3 * count);
        net.around.resize(4 * count), net.quads.resize(4 * count);
        std::vector<std::vector<int64_t>> doubtful(size_t(3 * blocks));
        parallel(blocks, threads_, [&](long long b) {
            std::vector<int64_t>* own[3];
            for (int a = 0; a < 3; ++a) own[a] = &doubtful[size_t(a * blocks + b)];
            write(b * kBlock, end_of(b), of_layer.data(), net, own);
        });
        for (const auto& part : doubtful) net.doubtful.insert(net.doubtful.end(), part.begin(), part.end());
        return net;
    }

private:
    static constexpr int64_t kBlock = 8;  // layers

    const uint8_t* inside_;
    const uint8_t* sheets_;
    int threads_;
    int64_t n_[3], width_, layer_;
    int number_[256];  // of sheets

    static int64_t exchange(int64_t& place, int64_t value) {
        const int64_t old = place;
        place = value;
        return old;
    }

    int64_t end_of(int64_t block) const {
        const int64_t end = (block + 1) * kBlock;
        return end < n_[0] + 1 ? end : n_[0] + 1;
    }

    // Corner 4x + 2y + z; edge 4·axis + 2·(place along the next axis) + (along the one after).
    static bool crossed(int pattern, int edge) {
        const int axis = edge / 4, bit[3] = {4, 2, 1};
        const int low = (edge >> 1 & 1) * bit[(axis + 1) % 3] + (edge & 1) * bit[(axis + 2) % 3];
        return (pattern >> low & 1) != (pattern >> (low + bit[axis]) & 1);
    }

    // Copies layers [first, last) of the grid, with a ring of what is outside around them.
    void load(int64_t first, int64_t last, std::vector<uint8_t>& out) const {
        out.assign(size_t((last - first) * layer_ + 16), 0);
        for (int64_t i = first; i < last; ++i) {
            if (i < 1 || i > n_[0]) continue;
            for (int64_t j = 0; j < n_[1]; ++j)
                std::memcpy(out.data() + (i - first) * layer_ + (j + 1) * width_ + 1,
                            inside_ + ((i - 1) * n_[1] + j) * n_[2], size_t(n_[2]));
        }
    }

    // Calls found(k) for each k < count where flags, of 0 and 1, has a 1; there are zeros up to a multiple of eight.
    template <class Found>
    static void each(const uint8_t* flags, int64_t count, Found&& found) {
        for (int64_t start = 0; start < count; start += 8) {
            uint64_t word;
            std::memcpy(&word, flags + start, 8);
            if (!word) continue;
            for (int64_t k = start; k < start + 8; ++k)
                if (flags[k]) found(k);
        }
    }

    // Flags the cells of one row that have corners inside and outside; `row` is their first node.
    void mixed(const uint8_t* row, uint8_t* sums, uint8_t* flags) const {
        const uint8_t *b = row + width_, *c = row + layer_, *d = c + width_;
        for (int64_t k = 0; k < width_; ++k) sums[k] = uint8_t(row[k] + b[k] + c[k] + d[k]);
        for (int64_t k = 0; k + 1 < width_; ++k) flags[k] = uint8_t(sums[k] + sums[k + 1] - 1) < 7;
    }

    int pattern(const uint8_t* node) const {
        int found = 0;
        for (int corner = 0; corner < 8; ++corner)
            found |= node[(corner >> 2 & 1) * layer_ + (corner >> 1 & 1) * width_ + (corner & 1)] << corner;
        return found;
    }

    void count(int64_t first, int64_t last, int64_t* of_layer) const {
        const int64_t cells = n_[0] + 1, steps[3] = {layer_, width_, 1};
        std::vector<uint8_t> nodes, sums(size_t(width_ + 8)), flags(size_t(width_ + 8), 0);
        load(first, last + 1, nodes);
        for (int64_t i = first; i < last; ++i) {
            int64_t totals[4] = {0, 0, 0, 0};
            for (int64_t j = 0; j <= n_[1]; ++j) {
                const uint8_t* row = nodes.data() + (i - first) * layer_ + j * width_;
                mixed(row, sums.data(), flags.data());
                int64_t own = 0;
                each(flags.data(), width_ - 1, [&](int64_t k) {
                    ++own;
                    totals[3] += number_[pattern(row + k)];
                });
                if (!own) continue;  // each crossed edge that starts here is one of a mixed cell that does
                for (int a = 0; a < 3; ++a)
                    for (int64_t k = 0; k + 1 < width_; ++k) totals[a] += row[k] ^ row[k + steps[a]];
            }
            for (int a = 0; a < 4; ++a) of_layer[a * (cells + 1) + i] = totals[a];
        }
    }

    // Numbers the vertices of a layer of cells: number · 256 + pattern where a cell is mixed; the others stay.
    void label(const uint8_t* nodes, int64_t vertex, std::vector<int64_t>& out, std::vector<uint8_t>& sums,
               std::vector<uint8_t>& flags) const {
        for (int64_t j = 0; j <= n_[1]; ++j) {
            const uint8_t* row = nodes + j * width_;
            mixed(row, sums.data(), flags.data());
            each(flags.data(), width_ - 1, [&](int64_t k) {
                const int own = pattern(row + k);
                out[size_t(j * width_ + k)] = vertex * 256 + own;
                vertex += number_[own];
            });
        }
    }

    void write(int64_t first, int64_t last, const int64_t* of_layer, SurfaceNet& net,
               std::vector<int64_t>* const* doubtful) const {
        const int64_t cells = n_[0] + 1, steps[3] = {layer_, width_, 1};
        const int64_t low = first > 0 ? first - 1 : 0;  // the layer below is around edges of the first
        std::vector<uint8_t> nodes, sums(size_t(width_ + 8)), flags(size_t(width_ + 8), 0);
        load(low, last + 1, nodes);
        std::vector<int64_t> here(static_cast<size_t>(layer_)), below(static_cast<size_t>(layer_));
        for (int64_t i = low; i < last; ++i) {
            here.swap(below);
            const uint8_t* base = nodes.data() + (i - low) * layer_;
            label(base, of_layer[3 * (cells + 1) + i], here, sums, flags);
            if (i < first) continue;
            for (int a = 0; a < 3; ++a) {
                int64_t edge = of_layer[a * (cells + 1) + i];
                for (int64_t j = 0; j <= n_[1]; ++j) {
                    const uint8_t* row = base + j * width_;
                    for (int64_t k = 0; k + 1 < width_; ++k) flags[size_t(k)] = row[k] ^ row[k + steps[a]];
                    each(flags.data(), width_ - 1, [&](int64_t k) {
                        const int64_t place[3] = {i, j, k};
                        put(net, edge, a, place, row + k, here.data(), below.data(), *doubtful[a]);
                        ++edge;
                    });
                }
            }
        }
    }

    void put(SurfaceNet& net, int64_t edge, int axis, const int64_t* place, const uint8_t* node, const int64_t* here,
             const int64_t* below, std::vector<int64_t>& doubtful) const {
        const int64_t steps[3] = {layer_, width_, 1};
        const int next = (axis + 1) % 3, after = (axis + 2) % 3;
        const bool out = node[0] != 0;  // whether the edge starts inside
        int64_t ends[2][3];
        for (int a = 0; a < 3; ++a) ends[0][a] = ends[1][a] = place[a] - 1;
        ++ends[out ? 1 : 0][axis];
        net.inner[size_t(edge)] = number(ends[0]);
        net.outer[size_t(edge)] = number(ends[1]);
        for (int a = 0; a < 3; ++a) net.at[size_t(3 * edge + a)] = int32_t(ends[0][a]);
        net.way[size_t(edge)] = 2 * axis + (out ? 1 : 0);
        constexpr int kNext[4] = {1, 0, 0, 1}, kAfter[4] = {1, 1, 0, 0};  // steps back to the cells around it
        int64_t* around = net.around.data() + 4 * edge;
        for (int c = 0; c < 4; ++c) {
            int64_t cell[3] = {place[0], place[1], place[2]};
            cell[next] -= kNext[c];
            cell[after] -= kAfter[c];
            const int64_t known = (cell[0] == place[0] ? here : below)[cell[1] * width_ + cell[2]];
            const int side = 4 * axis + 2 * kNext[c] + kAfter[c];
            around[c] = (known >> 8) + sheets_[12 * (known & 255) + side];
        }
        // A face of the grid beside the edge with four crossings has corners that alternate.
        const int64_t beside[4] = {-steps[after], steps[next], steps[after], -steps[next]}, along = steps[axis];
        for (int k = 0; k < 4; ++k) {
            net.quads[size_t(4 * edge + k)] = around[out ? k : 3 - k];
            const int64_t w = beside[out ? k : (6 - k) % 4];
            if (node[w] == node[along] && node[along + w] == node[0]) doubtful.push_back(4 * edge + k);
        }
    }

    int64_t number(const int64_t* at) const {
        for (int a = 0; a < 3; ++a)
            if (at[a] < 0 || at[a] >= n_[a]) return -1;
        return (at[0] * n_[1] + at[1]) * n_[2] + at[2];
    }
};

}  // namespace geodiff
