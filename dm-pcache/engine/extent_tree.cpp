// SPDX-License-Identifier: GPL-2.0
// engine/extent_tree.cpp - the node size the engine uses. Contracts, invariants, locking:
// extent_tree.hpp.
#include "dm-pcache/engine/extent_tree_body.hpp"

namespace pcache::engine
{

template class BasicExtentTree<extent_node_bytes>;

} // namespace pcache::engine
