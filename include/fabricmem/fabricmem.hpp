// SPDX-License-Identifier: Apache-2.0
// Everything but the seam itself (driver.hpp) and the emulated driver (emulated_driver.hpp).
#pragma once

#include <fabricmem/arena.hpp>
#include <fabricmem/c10d_store.hpp>
#include <fabricmem/checks.hpp>
#include <fabricmem/counters.hpp>
#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/flag_slots.hpp>
#include <fabricmem/from_pointer.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/handshake.hpp>
#include <fabricmem/import_cache.hpp>
#include <fabricmem/log.hpp>
#include <fabricmem/memory_report.hpp>
#include <fabricmem/owned_ranges.hpp>
#include <fabricmem/peer_probe.hpp>
#include <fabricmem/platform.hpp>
#include <fabricmem/probe.hpp>
#include <fabricmem/store.hpp>
#include <fabricmem/store_exchange.hpp>
#include <fabricmem/types.hpp>
#include <fabricmem/version.hpp>
