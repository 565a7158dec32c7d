// SPDX-License-Identifier: Apache-2.0
// Stands in for Mooncake's transfer engine over its NVLink transport: the names that docs/mooncake.md calls, and what
// the transport does behind them with the driver. Written for these tests; nothing of Mooncake's is in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/driver.hpp>

#include "support/buffers.hpp"
#include "support/driver_kit.hpp"

// NOLINTBEGIN(readability-identifier-naming): the engine's names
namespace mooncake {

using BatchID = std::uint64_t;
using SegmentHandle = std::int64_t;

struct BufferDesc {
    std::string name{};
    std::uint64_t addr = 0;
    std::uint64_t length = 0;
    std::string shm_name{};
};

struct TransferRequest {
    enum OpCode { READ, WRITE };
    OpCode opcode = WRITE;
    void* source = nullptr;
    SegmentHandle target_id = 0;
    std::uint64_t target_offset = 0;
    std::size_t length = 0;
};

enum class TransferStatusEnum { WAITING, COMPLETED, FAILED };

struct TransferStatus {
    TransferStatusEnum s = TransferStatusEnum::WAITING;
};

class Status {
public:
    explicit Status(std::string text = {}) : text_(std::move(text)) {}
    [[nodiscard]] bool ok() const { return text_.empty(); }
    [[nodiscard]] std::string ToString() const { return text_; }

private:
    std::string text_;
};

/// What the engines of a group know of each other: the buffers of each segment.
using Metadata = std::map<std::string, std::vector<BufferDesc>>;

/// The two places where the transport is changed.
struct EngineCalls {
    std::function<CUresult(CUdeviceptr address, CUdeviceptr* base, std::size_t* bytes)> range;
    std::function<CUresult(CUdeviceptr at, std::size_t bytes, CUmemGenericAllocationHandle handle)> grant;
};

/// One process's. Keeps the handles that it retains until its own end, as the transport does.
class TransferEngine {
public:
    TransferEngine(std::shared_ptr<fabricmem::Driver> driver, std::shared_ptr<Metadata> metadata, std::string name,
                   EngineCalls calls)
        : driver_(std::move(driver)),
          metadata_(std::move(metadata)),
          name_(std::move(name)),
          calls_(std::move(calls)),
          context_(driver_, 0) {
        REQUIRE(driver_->stream_create(&stream_, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    }
    TransferEngine(const TransferEngine&) = delete;
    TransferEngine& operator=(const TransferEngine&) = delete;
    ~TransferEngine() {
        driver_->stream_destroy(stream_);
        for (const auto& [key, opened] : opened_) {
            driver_->mem_unmap(opened.at, opened.bytes);
            driver_->mem_release(opened.handle);
            driver_->mem_address_free(opened.at, opened.bytes);
        }
        for (const CUmemGenericAllocationHandle handle : retained_) driver_->mem_release(handle);
    }

    /// 0 for memory that has no handle too, and then peers are told nothing.
    int registerLocalMemory(void* addr, std::size_t length, const std::string& location) {
        static_cast<void>(length);
        CUmemGenericAllocationHandle handle = 0;
        if (driver_->mem_retain_allocation_handle(&handle, addr) != CUDA_SUCCESS) return 0;
        retained_.push_back(handle);
        CUdeviceptr base = 0;
        std::size_t bytes = 0;
        if (calls_.range(fabricmem::test::pointer(addr), &base, &bytes) != CUDA_SUCCESS) return -1;
        fabricmem::test::FabricBytes exported{};
        if (fabricmem::test::export_fabric(*driver_, handle, &exported) != CUDA_SUCCESS) return -1;
        (*metadata_)[name_].push_back({location, base, bytes, fabricmem::test::to_hex(exported)});
        return 0;
    }
    /// Takes the entry back, not the handle.
    int unregisterLocalMemory(void* addr) {
        std::vector<BufferDesc>& mine = (*metadata_)[name_];
        return std::erase_if(mine,
                             [&](const BufferDesc& entry) { return entry.addr == fabricmem::test::pointer(addr); })
                   ? 0
                   : -1;
    }
    [[nodiscard]] const std::vector<BufferDesc>& published() { return (*metadata_)[name_]; }

    /// -1 where one of the segment's descriptors is corrupt: then none of its buffers can be reached.
    [[nodiscard]] SegmentHandle openSegment(const std::string& segment) {
        for (const BufferDesc& entry : (*metadata_)[segment]) {
            if (entry.addr == 0 || entry.length == 0) return -1;
        }
        segments_.push_back(segment);
        return static_cast<SegmentHandle>(segments_.size()) - 1;
    }

    [[nodiscard]] BatchID allocateBatchID(std::size_t count) {
        static_cast<void>(count);
        batches_[++last_batch_] = 0;
        return last_batch_;
    }
    Status freeBatchID(BatchID batch) { return batches_.erase(batch) == 1 ? Status() : Status("no such batch"); }
    Status submitTransfer(BatchID batch, const std::vector<TransferRequest>& requests) {
        for (const TransferRequest& request : requests) {
            CUdeviceptr to = relocate(request);
            if (to == 0) return Status("Requested address " + std::to_string(request.target_offset) + " not found!");
            CUdeviceptr from = fabricmem::test::pointer(request.source);
            std::size_t bytes = request.length;
            const bool done = driver_->memcpy_batch_async(&to, &from, &bytes, 1, stream_) == CUDA_SUCCESS &&
                              driver_->stream_synchronize(stream_) == CUDA_SUCCESS;
            if (!done) ++batches_[batch];
            ++writes_;
        }
        return Status();
    }
    /// A batch without a slice has none that failed: COMPLETED.
    Status getTransferStatus(BatchID batch, std::size_t task, TransferStatus& status) {
        static_cast<void>(task);
        status.s = batches_[batch] == 0 ? TransferStatusEnum::COMPLETED : TransferStatusEnum::FAILED;
        return Status();
    }
    [[nodiscard]] std::size_t writes() const { return writes_; }
    [[nodiscard]] std::size_t batches() const { return batches_.size(); }

private:
    struct Opened {
        CUmemGenericAllocationHandle handle = 0;
        CUdeviceptr at = 0;
        std::size_t bytes = 0;
    };

    CUdeviceptr relocate(const TransferRequest& request) {
        if (request.target_id < 0) return 0;
        const std::string& segment = segments_[static_cast<std::size_t>(request.target_id)];
        for (const BufferDesc& entry : (*metadata_)[segment]) {
            if (request.target_offset < entry.addr ||
                request.target_offset + request.length > entry.addr + entry.length)
                continue;
            const auto [at, is_new] = opened_.try_emplace({segment, entry.addr});
            if (is_new) open(entry, &at->second);
            return at->second.at + (request.target_offset - entry.addr);
        }
        return 0;
    }
    void open(const BufferDesc& entry, Opened* opened) {
        opened->bytes = entry.length;
        const fabricmem::test::FabricBytes bytes = fabricmem::test::from_hex(entry.shm_name);
        REQUIRE(fabricmem::test::import_fabric(*driver_, bytes, &opened->handle) == CUDA_SUCCESS);
        REQUIRE(driver_->mem_address_reserve(&opened->at, entry.length, 0, 0, 0) == CUDA_SUCCESS);
        REQUIRE(driver_->mem_map(opened->at, entry.length, 0, opened->handle, 0) == CUDA_SUCCESS);
        REQUIRE(calls_.grant(opened->at, entry.length, opened->handle) == CUDA_SUCCESS);
    }

    std::shared_ptr<fabricmem::Driver> driver_;
    std::shared_ptr<Metadata> metadata_;
    std::string name_;
    EngineCalls calls_;
    fabricmem::test::PrimaryContext context_;
    CUstream stream_ = nullptr;
    std::vector<std::string> segments_{};
    std::map<std::pair<std::string, std::uint64_t>, Opened> opened_{};
    std::vector<CUmemGenericAllocationHandle> retained_{};
    std::map<BatchID, std::size_t> batches_{};  // with how many slices that failed
    BatchID last_batch_ = 0;
    std::size_t writes_ = 0;
};

/// As the transport is today: the range call that says base 0 of host memory, and access for the device alone.
[[nodiscard]] inline EngineCalls calls_of_today(const std::shared_ptr<fabricmem::Driver>& driver) {
    return {[driver](CUdeviceptr address, CUdeviceptr* base, std::size_t* bytes) {
                return driver->mem_get_address_range(base, bytes, address);
            },
            [driver](CUdeviceptr at, std::size_t bytes, CUmemGenericAllocationHandle) {
                const CUmemAccessDesc access = fabricmem::test::access_for(fabricmem::test::kDevice);
                return driver->mem_set_access(at, bytes, &access, 1);
            }};
}

}  // namespace mooncake
// NOLINTEND(readability-identifier-naming)
