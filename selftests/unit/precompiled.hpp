// SPDX-License-Identifier: GPL-2.0
// selftests/unit/precompiled.hpp - what nearly every test includes, compiled once for each flavour
// (selftests/Makefile). Tests include what they use all the same.
#pragma once
#include <gtest/gtest.h>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include "selftests/unit/rig.hpp"
