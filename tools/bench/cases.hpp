// SPDX-License-Identifier: Apache-2.0
// What is measured. The cases with two processes have a part for each; both are called with the same options.
#pragma once

#include <functional>
#include <memory>

#include <fabricmem/driver.hpp>

#include "measure.hpp"
#include "options.hpp"
#include "pin.hpp"
#include "pingpong_wire.hpp"

namespace bench {

/// Takes each result as it comes.
using Take = std::function<void(const Comparison&)>;

void bench_blob(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take);
void bench_lifecycle(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take);
void bench_allocate(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take);
void bench_arena(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take);
/// `all_cpus`: what its threads may use.
void bench_cache(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const CpuList& all_cpus,
                 const Take& take);
/// Of memory that this process exports itself.
void bench_own_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take);

/// Of memory that the second process exports.
void bench_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                  const Take& take);
void serve_import(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control);

/// As many peers' memory at once.
void bench_peers(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                 const Take& take);
void serve_peers(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control);

void bench_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control,
                 const Take& take);
void serve_flags(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, pingpong::Control& control);

void bench_bandwidth(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                     pingpong::Control& control, const Take& take);
void serve_bandwidth(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                     pingpong::Control& control);

void bench_pingpong(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                    pingpong::Control& control, const Take& take);
void serve_pingpong(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                    pingpong::Control& control);

}  // namespace bench
