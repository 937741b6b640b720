// SPDX-License-Identifier: Apache-2.0
// A tree of boxes over numbered things. It may change a little: things grow, and new ones are put beside old ones.
#pragma once
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace geodiff {

struct Box {
    double low[3], high[3];

    static Box none() {
        const double most = std::numeric_limits<double>::infinity();
        return {{most, most, most}, {-most, -most, -most}};
    }
    void take(const double* x) {
        for (int k = 0; k < 3; ++k) low[k] = std::min(low[k], x[k]), high[k] = std::max(high[k], x[k]);
    }
    void take(const Box& other) { take(other.low), take(other.high); }
    bool is_none() const { return low[0] > high[0]; }
    bool holds(const Box& other) const {
        for (int k = 0; k < 3; ++k)
            if (other.low[k] < low[k] || other.high[k] > high[k]) return false;
        return true;
    }
    bool meets(const Box& other) const {
        return low[0] <= other.high[0] && other.low[0] <= high[0] && low[1] <= other.high[1] &&
               other.low[1] <= high[1] && low[2] <= other.high[2] && other.low[2] <= high[2];
    }
    double squared_distance(const double* x) const {
        double sum = 0;
        for (int k = 0; k < 3; ++k) {
            const double gap = std::max(std::max(low[k] - x[k], x[k] - high[k]), 0.0);
            sum += gap * gap;
        }
        return sum;
    }
};

class BoxTree {
public:
    // Of the things whose boxes are not none.
    void build(const std::vector<Box>& boxes) {
        boxes_ = boxes;
        next_.assign(boxes.size(), -1);
        leaf_.assign(boxes.size(), -1);
        nodes_.clear();
        leaves_.clear();
        std::vector<int> order;
        for (int i = 0; i < int(boxes.size()); ++i)
            if (!boxes[size_t(i)].is_none()) order.push_back(i);
        if (!order.empty()) divide(order, 0, order.size(), -1);
    }

    const Box& box(int thing) const { return boxes_[size_t(thing)]; }

    void move(int thing, const Box& box) {
        boxes_[size_t(thing)] = box;
        for (int node = leaf_[size_t(thing)]; node >= 0 && !nodes_[size_t(node)].box.holds(box);
             node = nodes_[size_t(node)].parent)
            nodes_[size_t(node)].box.take(box);
    }

    // The next number, in the neighbourhood of an old one.
    void add(int like, const Box& box) {
        const int thing = int(boxes_.size()), leaf = leaf_[size_t(like)];
        boxes_.push_back(box);
        leaf_.push_back(leaf);
        next_.push_back(nodes_[size_t(leaf)].first);
        nodes_[size_t(leaf)].first = thing;
        move(thing, box);
    }

    // Calls visit(thing) for those whose boxes meet this one, until it returns true.
    template <class Visit>
    bool meeting(const Box& box, Visit&& visit) const {
        if (nodes_.empty()) return false;
        int stack[kDepth], size = 0;
        stack[size++] = 0;
        while (size > 0) {
            const int at = stack[--size];
            const Node& node = nodes_[size_t(at)];
            if (!node.box.meets(box)) continue;
            if (node.right >= 0) {
                stack[size++] = node.right;
                stack[size++] = at + 1;
                continue;
            }
            for (int i = node.first; i >= 0; i = next_[size_t(i)])
                if (boxes_[size_t(i)].meets(box) && visit(i)) return true;
        }
        return false;
    }

    int leaves() const { return int(leaves_.size()); }

    // Calls visit(thing, thing) once for each pair of the things of a leaf, and of one of them and one of a leaf after
    // it, whose boxes meet.
    template <class Visit>
    void pairs_from(int leaf, Visit&& visit) const {
        const int own = leaves_[size_t(leaf)];
        const Box& box = nodes_[size_t(own)].box;
        for (int i = nodes_[size_t(own)].first; i >= 0; i = next_[size_t(i)])
            for (int j = next_[size_t(i)]; j >= 0; j = next_[size_t(j)])
                if (boxes_[size_t(i)].meets(boxes_[size_t(j)])) visit(i, j);
        int stack[kDepth], size = 0;
        stack[size++] = 0;
        while (size > 0) {
            const int at = stack[--size];
            const Node& node = nodes_[size_t(at)];
            if (node.end <= own || at == own || !node.box.meets(box)) continue;
            if (node.right >= 0) {
                stack[size++] = node.right;
                stack[size++] = at + 1;
                continue;
            }
            for (int j = node.first; j >= 0; j = next_[size_t(j)]) {
                if (!boxes_[size_t(j)].meets(box)) continue;
                for (int i = nodes_[size_t(own)].first; i >= 0; i = next_[size_t(i)])
                    if (boxes_[size_t(i)].meets(boxes_[size_t(j)])) visit(i, j);
            }
        }
    }

    // Calls visit(thing, best), which may lower the squared distance `best`, for all that may be nearer than it.
    template <class Visit>
    void nearest(const double* x, double& best, Visit&& visit) const {
        if (nodes_.empty()) return;
        struct Entry {
            int node;
            double distance;
        } stack[kDepth];
        int size = 0;
        stack[size++] = {0, nodes_[0].box.squared_distance(x)};
        while (size > 0) {
            const Entry entry = stack[--size];
            if (entry.distance > best) continue;
            const Node& node = nodes_[size_t(entry.node)];
            if (node.right >= 0) {
                Entry near{entry.node + 1, nodes_[size_t(entry.node) + 1].box.squared_distance(x)};
                Entry far{node.right, nodes_[size_t(node.right)].box.squared_distance(x)};
                if (far.distance < near.distance) std::swap(near, far);
                stack[size++] = far;
                stack[size++] = near;
                continue;
            }
            for (int i = node.first; i >= 0; i = next_[size_t(i)])
                if (boxes_[size_t(i)].squared_distance(x) <= best) visit(i, best);
        }
    }

private:
    static constexpr size_t kLeaf = 4;
    static constexpr int kDepth = 64;  // halving at the median makes fewer levels than a count has bits

    struct Node {
        Box box;
        int parent;
        int right;  // −1 at a leaf; the left child comes next
        int first;  // thing of a leaf, the others by next_
        int end;    // one past the nodes beneath
    };

    void divide(std::vector<int>& order, size_t first, size_t end, int parent) {
        Box box = Box::none(), middles = Box::none();
        for (size_t i = first; i < end; ++i) {
            const Box& own = boxes_[size_t(order[i])];
            box.take(own);
            const double middle[3] = {own.low[0] + own.high[0], own.low[1] + own.high[1], own.low[2] + own.high[2]};
            middles.take(middle);
        }
        const int node = int(nodes_.size());
        nodes_.push_back({box, parent, -1, -1, node + 1});
        if (end - first <= kLeaf) {
            leaves_.push_back(node);
            for (size_t i = end; i-- > first;) {
                next_[size_t(order[i])] = nodes_[size_t(node)].first;
                nodes_[size_t(node)].first = order[i];
                leaf_[size_t(order[i])] = node;
            }
            return;
        }
        int axis = 0;
        for (int k = 1; k < 3; ++k)
            if (middles.high[k] - middles.low[k] > middles.high[axis] - middles.low[axis]) axis = k;
        const size_t half = first + (end - first) / 2;
        using Step = std::vector<int>::difference_type;
        std::nth_element(order.begin() + Step(first), order.begin() + Step(half), order.begin() + Step(end),
                         [&](int i, int j) {
                             const Box &a = boxes_[size_t(i)], &b = boxes_[size_t(j)];
                             const double p = a.low[axis] + a.high[axis], q = b.low[axis] + b.high[axis];
                             return p < q || (p == q && i < j);
                         });
        divide(order, first, half, node);
        nodes_[size_t(node)].right = int(nodes_.size());
        divide(order, half, end, node);
        nodes_[size_t(node)].end = int(nodes_.size());
    }

    std::vector<Box> boxes_;   // of the things
    std::vector<int> next_, leaf_, leaves_;
    std::vector<Node> nodes_;
};

}  // namespace geodiff
