// SPDX-License-Identifier: Apache-2.0
// A ping-pong written anew, with no more than its bytes need: what the example's loop is compared with. Shares none of
// the example's rounds, transports or waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <fabricmem/driver.hpp>

#include "pingpong_gpu.hpp"
#include "pingpong_options.hpp"
#include "pingpong_wire.hpp"

namespace bench {

/// What goes to and fro.
enum class Carries : std::uint8_t {
    flag,     ///< the flag alone
    payload,  ///< the payload in the way that is the fastest for a few bytes, and the flag
    copied,   ///< Mode::stream: the payload by cuMemcpyAsync, and the flag
};

/// Two addresses: what the other side writes to, and what it looks at as it is mapped here. 4 KiB of each, all zero.
struct RawSide {
    CUdeviceptr own = 0;
    CUdeviceptr peer = 0;
    bool cpu_reaches = false;  ///< whether the CPU may load from `own`
};

/// One side. Both sides call the same rounds in the same order, one ping() and the other pong().
class RawLoop {
public:
    /// A context has to be current. `payload_bytes`: a multiple of 8, at most 2 KiB. `control` tells a wait that the
    /// other side is gone.
    RawLoop(const std::shared_ptr<fabricmem::Driver>& driver, pingpong::Mode mode, const RawSide& side,
            std::size_t payload_bytes, pingpong::Control& control);
    RawLoop(const RawLoop&) = delete;
    RawLoop& operator=(const RawLoop&) = delete;
    /// Writes itself what its stream still waits for.
    ~RawLoop();

    /// Returns how long the round trip took, in microseconds.
    double ping(Carries carries);
    void pong(Carries carries);

private:
    void fill();
    void put(Carries carries);
    void set(std::size_t flag, std::uint32_t value);
    void wait(std::size_t flag, std::uint32_t value);
    void sync();
    [[nodiscard]] bool is_idle(const pingpong::Stream& stream);
    void check(Carries carries);
    template <class Done>
    void spin(Done&& done);
    void done(CUresult result, const char* call);

    fabricmem::Driver& driver_;
    pingpong::Mode mode_;
    RawSide side_;
    std::size_t bytes_;
    pingpong::Control& control_;
    std::uint32_t round_ = 0;
    std::uint32_t next_slot_ = 0;
    std::vector<std::uint64_t> arrived_;
    pingpong::PinnedMemory pinned_;  // before the streams, whose work reads and writes it
    pingpong::Stream stream_;
    pingpong::Stream other_stream_;
};

}  // namespace bench
