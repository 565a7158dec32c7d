// SPDX-License-Identifier: Apache-2.0
// Marks what the shared libraries export; everything else is hidden. Knows nothing of the library.
#pragma once

#define FABRICMEM_API __attribute__((visibility("default")))
