// SPDX-License-Identifier: MIT
#include "tests/core/table_world.h"
