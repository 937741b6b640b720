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
        bool apart = false;  // without branches, which nobody could foresee
        for (int k = 0; k < 3; ++k) apart |= (low[k] > other.high[k]) | (other.low[k] > high[k]);
        return !apart;
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
        std::vector<Item> items;
        for (int i = 0; i < int(boxes.size()); ++i) {
            const Box& own = boxes[size_t(i)];
            if (own.is_none()) continue;
            items.push_back({{own.low[0] + own.high[0], own.low[1] + own.high[1], own.low[2] + own.high[2]}, i});
        }
        if (!items.empty()) divide(items, 0, items.size(), -1);
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
        if (nodes_.empty() || !nodes_[0].box.meets(box)) return false;
        int stack[kDepth], size = 0;
        stack[size++] = 0;
        while (size > 0) {
            const int at = stack[--size];
            const Node& node = nodes_[size_t(at)];
            if (node.right >= 0) {
                if (nodes_[size_t(node.right)].box.meets(box)) stack[size++] = node.right;
                if (nodes_[size_t(at) + 1].box.meets(box)) stack[size++] = at + 1;
                continue;
            }
            for (int i = node.first; i >= 0; i = next_[size_t(i)])
                if (boxes_[size_t(i)].meets(box) && visit(i)) return true;
        }
        return false;
    }

    // Parts of the search for all pairs of things whose boxes meet: those in the node a, or of the nodes a and b.
    struct Part {
        int a, b;
    };
    std::vector<Part> parts() const {
        std::vector<Part> found;
        if (!nodes_.empty()) divide_search(0, kParts, found);
        return found;
    }

    // Calls visit(thing, thing) once for each pair of a part.
    template <class Visit>
    void pairs(const Part& part, Visit&& visit) const {
        part.a == part.b ? pairs_in(part.a, visit) : pairs_of(part.a, part.b, visit);
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
                if (far.distance <= best) stack[size++] = far;
                if (near.distance <= best) stack[size++] = near;
                continue;
            }
            for (int i = node.first; i >= 0; i = next_[size_t(i)])
                if (boxes_[size_t(i)].squared_distance(x) <= best) visit(i, best);
        }
    }

private:
    static constexpr size_t kLeaf = 4;
    static constexpr int kParts = 6;   // halvings, for threads to share
    static constexpr int kDepth = 64;  // halving at the median makes fewer levels than a count has bits

    struct Node {
        Box box;
        int parent;
        int right;  // −1 at a leaf; the left child comes next
        int first;  // thing of a leaf, the others by next_
        int end;    // one past the nodes beneath
    };

    struct Item {
        double middle[3];  // twice
        int thing;
    };

    // A node with what is beneath it.
    void divide(std::vector<Item>& items, size_t first, size_t end, int parent) {
        const int node = int(nodes_.size());
        nodes_.push_back({Box::none(), parent, -1, -1, node + 1});
        if (end - first <= kLeaf) {
            for (size_t i = end; i-- > first;) {
                const int thing = items[i].thing;
                next_[size_t(thing)] = nodes_[size_t(node)].first;
                nodes_[size_t(node)].first = thing;
                leaf_[size_t(thing)] = node;
                nodes_[size_t(node)].box.take(boxes_[size_t(thing)]);
            }
            return;
        }
        Box middles = Box::none();
        for (size_t i = first; i < end; ++i) middles.take(items[i].middle);
        int axis = 0;
        for (int k = 1; k < 3; ++k)
            if (middles.high[k] - middles.low[k] > middles.high[axis] - middles.low[axis]) axis = k;
        const size_t half = first + (end - first) / 2;
        using Step = std::vector<Item>::difference_type;
        std::nth_element(items.begin() + Step(first), items.begin() + Step(half), items.begin() + Step(end),
                         [axis](const Item& a, const Item& b) {
                             return a.middle[axis] < b.middle[axis] ||
                                    (a.middle[axis] == b.middle[axis] && a.thing < b.thing);
                         });
        divide(items, first, half, node);
        const int right = int(nodes_.size());
        divide(items, half, end, node);
        Node& own = nodes_[size_t(node)];
        own.right = right, own.end = int(nodes_.size());
        own.box.take(nodes_[size_t(node) + 1].box), own.box.take(nodes_[size_t(right)].box);
    }

    void divide_search(int node, int depth, std::vector<Part>& found) const {
        const int right = nodes_[size_t(node)].right;
        if (depth == 0 || right < 0) return found.push_back({node, node});
        found.push_back({node + 1, right});
        divide_search(node + 1, depth - 1, found), divide_search(right, depth - 1, found);
    }

    template <class Visit>
    void pairs_in(int node, Visit& visit) const {
        const Node& own = nodes_[size_t(node)];
        if (own.right >= 0) {
            pairs_in(node + 1, visit), pairs_in(own.right, visit), pairs_of(node + 1, own.right, visit);
            return;
        }
        for (int i = own.first; i >= 0; i = next_[size_t(i)])
            for (int j = next_[size_t(i)]; j >= 0; j = next_[size_t(j)])
                if (boxes_[size_t(i)].meets(boxes_[size_t(j)])) visit(i, j);
    }

    template <class Visit>
    void pairs_of(int a, int b, Visit& visit) const {
        const Node &one = nodes_[size_t(a)], &two = nodes_[size_t(b)];
        if (!one.box.meets(two.box)) return;
        if (one.right >= 0 && (two.right < 0 || one.end - a >= two.end - b)) {
            pairs_of(a + 1, b, visit), pairs_of(one.right, b, visit);
        } else if (two.right >= 0) {
            pairs_of(a, b + 1, visit), pairs_of(a, two.right, visit);
        } else {
            for (int i = one.first; i >= 0; i = next_[size_t(i)]) {
                if (!boxes_[size_t(i)].meets(two.box)) continue;
                for (int j = two.first; j >= 0; j = next_[size_t(j)])
                    if (boxes_[size_t(i)].meets(boxes_[size_t(j)])) visit(i, j);
            }
        }
    }

    std::vector<Box> boxes_;   // of the things
    std::vector<int> next_, leaf_;
    std::vector<Node> nodes_;
};

}  // namespace geodiff
