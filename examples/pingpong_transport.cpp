// SPDX-License-Identifier: Apache-2.0
// How bytes and flags travel in each mode.
#include <atomic>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "pingpong_loop.hpp"
#include "pingpong_spin.hpp"

namespace pingpong {
namespace {

/// Whether a flag that reads `value` says that `round` is reached. As cuStreamWaitValue32's GEQ compares.
bool reached(std::uint32_t value, std::uint32_t round) { return static_cast<std::int32_t>(value - round) >= 0; }

std::atomic_ref<std::uint32_t> flag_at(CUdeviceptr address) {
    return std::atomic_ref(*reinterpret_cast<std::uint32_t*>(address));
}

/// Acquire: who sees the flag sees the payload that was written before it.
bool cpu_sees(CUdeviceptr flag, std::uint32_t round) {
    return reached(flag_at(flag).load(std::memory_order_acquire), round);
}

constexpr std::string_view kReady = "the peer to be ready for the next round";
constexpr std::string_view kArrived = "the peer's bytes";

/// A round where the host does each step itself. Derived classes say how.
class HostDriven : public Transport {
public:
    void await_ready(std::uint32_t round) final { wait(kReadyOffset, round, kReady); }

    void ping(const Source& source, std::uint32_t round) final {
        put(source.address, source.bytes);
        set(kArrivedOffset, round);
        wait(kArrivedOffset, round, kArrived);
    }

    void say_ready(std::uint32_t round) final { set(kReadyOffset, round); }

    void pong(const Source& source, std::uint32_t round) final {
        set(kReadyOffset, round);
        wait(kArrivedOffset, round, kArrived);
        put(source.address, source.bytes);
        set(kArrivedOffset, round);
        wait(kReadyOffset, round, kReady);
    }

protected:
    HostDriven(const Memory& memory, Watch& watch) : memory_(memory), watch_(watch) {}

    /// Into the peer's payload.
    virtual void put(CUdeviceptr source, std::size_t bytes) = 0;
    /// The peer's flag, after all that was put before.
    virtual void set(std::size_t flag_offset, std::uint32_t round) = 0;
    /// For this side's flag.
    virtual void wait(std::size_t flag_offset, std::uint32_t round, std::string_view awaited) = 0;

    [[nodiscard]] const Memory& memory() const noexcept { return memory_; }
    [[nodiscard]] Watch& watch() const noexcept { return watch_; }

private:
    Memory memory_;
    Watch& watch_;
};

class CpuTransport final : public HostDriven {
public:
    CpuTransport(const Memory& memory, Watch& watch) : HostDriven(memory, watch) {
        if (memory.own_access == CpuAccess::no || memory.peer_access == CpuAccess::no) {
            throw std::runtime_error(
                "mode cpu needs memory that the CPU may load and store, and the driver gave it "
                "no access");
        }
    }

private:
    void put(CUdeviceptr source, std::size_t bytes) override {
        std::memcpy(reinterpret_cast<void*>(memory().peer + kPayloadOffset), reinterpret_cast<const void*>(source),
                    bytes);
    }

    void set(std::size_t flag_offset, std::uint32_t round) override {
        flag_at(memory().peer + flag_offset).store(round, std::memory_order_release);
    }

    void wait(std::size_t flag_offset, std::uint32_t round, std::string_view awaited) override {
        spin_until(watch(), awaited, [&] { return cpu_sees(memory().own + flag_offset, round); });
    }
};

/// Copies that the host issues. One stream for what is sent, so that the flag follows its payload; one for looking.
class CopyTransport final : public HostDriven {
public:
    CopyTransport(const std::shared_ptr<fabricmem::Driver>& driver, const Memory& memory, Watch& watch)
        : HostDriven(memory, watch),
          words_(driver, (kSlots + 1) * sizeof(std::uint32_t)),
          sending_(driver),
          looking_(driver) {}

private:
    // Flag values on their way: a copy reads its source when its turn comes. At most three are on their way at once.
    static constexpr std::uint32_t kSlots = 16;

    [[nodiscard]] CUdeviceptr word(std::uint32_t index) const noexcept {
        return reinterpret_cast<CUdeviceptr>(words_.get()) + index * sizeof(std::uint32_t);
    }

    void put(CUdeviceptr source, std::size_t bytes) override {
        sending_.copy(memory().peer + kPayloadOffset, source, bytes);
    }

    void set(std::size_t flag_offset, std::uint32_t round) override {
        const CUdeviceptr slot = word(next_slot_++ % kSlots);
        flag_at(slot).store(round, std::memory_order_release);
        sending_.copy(memory().peer + flag_offset, slot, sizeof(round));
    }

    void wait(std::size_t flag_offset, std::uint32_t round, std::string_view awaited) override {
        const CUdeviceptr flag = memory().own + flag_offset;
        if (memory().own_access == CpuAccess::yes) {
            spin_until(watch(), awaited, [&] { return cpu_sees(flag, round); });
            return;
        }
        const CUdeviceptr copied = word(kSlots);
        looking_.copy(copied, flag, sizeof(round));
        spin_until(watch(), awaited, [&] {
            if (!looking_.is_idle()) return false;
            if (cpu_sees(copied, round)) return true;
            looking_.copy(copied, flag, sizeof(round));
            return false;
        });
    }

    PinnedMemory words_;  // before the streams, whose work reads and writes it
    Stream sending_;
    Stream looking_;
    std::uint32_t next_slot_ = 0;
};

/// Payload, flag and wait are work on a stream: the GPUs play the round, the host only sees it end.
class StreamTransport final : public Transport {
public:
    StreamTransport(const std::shared_ptr<fabricmem::Driver>& driver, const Memory& memory, Watch& watch)
        : memory_(memory), watch_(watch), stream_(driver), releasing_(driver) {}

    ~StreamTransport() override { release(); }

    void await_ready(std::uint32_t round) override {
        wait(kReadyOffset, round);
        finish(kReady);
    }

    void ping(const Source& source, std::uint32_t round) override {
        send(source, round);
        wait(kArrivedOffset, round);
        finish(kArrived);
    }

    void say_ready(std::uint32_t round) override { stream_.write_value(memory_.peer + kReadyOffset, round); }

    void pong(const Source& source, std::uint32_t round) override {
        say_ready(round);
        wait(kArrivedOffset, round);
        send(source, round);
        wait(kReadyOffset, round);
        finish(kArrived);
    }

private:
    void send(const Source& source, std::uint32_t round) {
        const CUdeviceptr payload = memory_.peer + kPayloadOffset;
        if (source.host != nullptr) {
            stream_.write_bytes(payload, source.host, source.bytes);
        } else {
            stream_.copy(payload, source.address, source.bytes);
        }
        stream_.write_value(memory_.peer + kArrivedOffset, round);
    }

    void wait(std::size_t flag_offset, std::uint32_t round) {
        awaited_ = round;
        stream_.wait_value(memory_.own + flag_offset, round);
    }

    void finish(std::string_view awaited) {
        spin_until(watch_, awaited, [this] { return stream_.is_idle(); });
    }

    /// A peer that died never writes what this side's stream waits for, and a stream that waits never comes to rest.
    /// So this side writes it itself: by the CPU, or on a stream that is not stuck.
    void release() noexcept {
        try {
            if (stream_.is_idle()) return;
            for (const std::size_t flag_offset : {kReadyOffset, kArrivedOffset}) {
                const CUdeviceptr flag = memory_.own + flag_offset;
                if (memory_.own_access == CpuAccess::yes) {
                    flag_at(flag).store(awaited_, std::memory_order_release);
                } else {
                    releasing_.write_value(flag, awaited_);
                }
            }
        } catch (const std::exception&) {  // the stream's end finds out what that means
        }
    }

    Memory memory_;
    Watch& watch_;
    Stream stream_;
    Stream releasing_;
    std::uint32_t awaited_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_transport(Mode mode, const std::shared_ptr<fabricmem::Driver>& driver,
                                          const Memory& memory, Watch& watch) {
    switch (mode) {
        case Mode::copy: return std::make_unique<CopyTransport>(driver, memory, watch);
        case Mode::stream: return std::make_unique<StreamTransport>(driver, memory, watch);
        case Mode::cpu: break;
    }
    return std::make_unique<CpuTransport>(memory, watch);
}

}  // namespace pingpong
