// SPDX-License-Identifier: Apache-2.0
// One rank, in a process of its own: meets the others and tells the process that started it, a JSON object a line.
#pragma once

#include "warmup/options.hpp"

namespace warmup {

/// `options.task` is set. Says on stdout, with "is": "hello" once the others can find it, "report" when everyone is
/// connected, has failed or is too late, "closed" when it has given everything back, "failed" in place of what did not
/// come to that. Between the report and the rest it waits for the end of stdin, since others may still need it. Returns
/// the exit code. The process is killed when the one that started it ends.
int run_rank(const Options& options);

}  // namespace warmup
