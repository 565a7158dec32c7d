// SPDX-License-Identifier: Apache-2.0
// Questions about streams, words, memory that the driver does not know, and captures.
#include <chrono>
#include <memory>
#include <thread>

#include "measure/measure.hpp"

namespace fabricmem::test {

namespace {

CUstream number_as_stream(std::uintptr_t number) { return reinterpret_cast<CUstream>(number); }

CUstream new_stream(Driver& driver, unsigned int flags) {
    CUstream stream = nullptr;
    driver.stream_create(&stream, flags);
    return stream;
}

// Holds `stream` up until the word at 0 is 1.
void block(Workbench& bench, CUstream stream) {
    bench.driver.memset_d8(bench.at(0), 0, 4096);
    bench.driver.ctx_synchronize();
    bench.driver.stream_wait_value32(stream, bench.at(0), 1, CU_STREAM_WAIT_VALUE_EQ);
}

void unblock(Workbench& bench, CUstream by) {
    bench.driver.stream_write_value32(by, bench.at(0), 1, 0);
    bench.driver.stream_synchronize(by);
    bench.driver.ctx_synchronize();
}

// A query's answer when it has settled: NOT_READY is what is still so after a time that is ample for all that can run.
CUresult settled(Driver& driver, CUstream stream) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
    CUresult result = driver.stream_query(stream);
    while (result == CUDA_ERROR_NOT_READY && std::chrono::steady_clock::now() < until) {
        std::this_thread::yield();
        result = driver.stream_query(stream);
    }
    return result;
}

// Which streams are held up by a blocked one, by their answers after some work was given to each.
void who_waits(Driver& driver, Answers& answers, const std::function<CUstream(Driver&)>& make_blocked) {
    Workbench bench(driver);
    const CUstream free_stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
    const std::pair<const char*, CUstream> others[] = {{"legacy", number_as_stream(1)},
                                                       {"per thread", number_as_stream(2)},
                                                       {"null", nullptr},
                                                       {"blocking", new_stream(driver, CU_STREAM_DEFAULT)},
                                                       {"non-blocking", new_stream(driver, CU_STREAM_NON_BLOCKING)}};
    block(bench, make_blocked(driver));
    for (const auto& [name, stream] : others) {
        answers.ask(std::string("query of ") + name + " without work",
                    [&, stream = stream] { return settled(driver, stream); });
    }
    std::size_t offset = 64;
    // Each in a bench of its own would be cleaner; work on the null stream holds up those behind it, so it comes last.
    for (const std::size_t index : {4U, 3U, 1U, 0U}) {
        const auto& [name, stream] = others[index];
        offset += 64;
        answers.ask(std::string("memset on ") + name,
                    [&, stream = stream] { return driver.memset_d8_async(bench.at(offset), 1, 4, stream); });
        answers.ask(std::string("query of ") + name + " with work",
                    [&, stream = stream] { return settled(driver, stream); });
    }
    unblock(bench, free_stream);
}

Questions waiting_questions() {
    Questions questions;
    const std::pair<const char*, std::function<CUstream(Driver&)>> blocked[] = {
        {"null", [](Driver&) { return CUstream{}; }},
        {"per-thread", [](Driver&) { return number_as_stream(2); }},
        {"blocking", [](Driver& driver) { return new_stream(driver, CU_STREAM_DEFAULT); }},
        {"non-blocking", [](Driver& driver) { return new_stream(driver, CU_STREAM_NON_BLOCKING); }}};
    for (const auto& [name, make] : blocked) {
        questions.push_back({std::string("who waits for a blocked ") + name + " stream",
                             [make = make](Driver& driver, Answers& answers) { who_waits(driver, answers, make); }});
    }
    return questions;
}

void destroyed_with_work(Driver& driver, Answers& answers) {
    Workbench bench(driver);
    const CUstream stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
    const CUstream free_stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
    block(bench, stream);
    driver.memset_d8_async(bench.at(64), 1, 4, stream);
    answers.ask("destroy", [&] { return driver.stream_destroy(stream); });
    unblock(bench, free_stream);
    std::uint32_t word = 0;
    driver.memcpy_dtoh(&word, bench.at(64), 4);
    answers.say("its work is done", yes_or_no(word == 0x01010101));
}

// Calls that may end the process: each a question of its own.
Questions strange_streams() {
    using Use = std::function<CUresult(Workbench&, CUstream)>;
    const std::pair<const char*, Use> uses[] = {
        {"query", [](Workbench& bench, CUstream stream) { return bench.driver.stream_query(stream); }},
        {"synchronize", [](Workbench& bench, CUstream stream) { return bench.driver.stream_synchronize(stream); }},
        {"memset",
         [](Workbench& bench, CUstream stream) { return bench.driver.memset_d8_async(bench.at(0), 1, 4, stream); }},
        {"write-value", [](Workbench& bench,
                           CUstream stream) { return bench.driver.stream_write_value32(stream, bench.at(0), 1, 0); }},
        {"destroy", [](Workbench& bench, CUstream stream) { return bench.driver.stream_destroy(stream); }}};
    const std::pair<const char*, std::function<CUstream(Driver&)>> streams[] = {
        {"a destroyed stream",
         [](Driver& driver) {
             const CUstream stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
             driver.stream_destroy(stream);
             return stream;
         }},
        {"a number that is no stream", [](Driver&) { return number_as_stream(0x1234560); }},
        {"CU_STREAM_LEGACY", [](Driver&) { return number_as_stream(1); }},
        {"CU_STREAM_PER_THREAD", [](Driver&) { return number_as_stream(2); }},
        {"the null stream", [](Driver&) { return CUstream{}; }}};
    Questions questions;
    for (const auto& [use_name, use] : uses) {
        for (const auto& [stream_name, make] : streams) {
            questions.push_back({std::string(use_name) + " of " + stream_name,
                                 [use = use, make = make](Driver& driver, Answers& answers) {
                                     Workbench bench(driver);
                                     const CUstream stream = make(driver);
                                     answers.ask("answer", [&] { return use(bench, stream); });
                                 }});
        }
    }
    return questions;
}

void stream_flags(Driver& driver, Answers& answers) {
    Workbench bench(driver);
    for (const unsigned int flags : {2U, 3U, 4U, 0x80000000U}) {
        CUstream stream = nullptr;
        answers.ask("stream with flags " + std::to_string(flags), [&] { return driver.stream_create(&stream, flags); });
    }
    const CUstream stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
    driver.stream_write_value32(stream, bench.at(0), 5, 0);
    for (const unsigned int flags : {1U, 2U, 4U, 8U, 0x40000000U}) {
        answers.ask("write with flags " + std::to_string(flags),
                    [&] { return bench.with_sync(driver.stream_write_value32(stream, bench.at(64), 1, flags)); });
    }
    for (const unsigned int flags : {4U, 5U, 8U, 0x40000000U, 0x40000001U}) {
        answers.ask("wait with flags " + std::to_string(flags),
                    [&] { return bench.with_sync(driver.stream_wait_value32(stream, bench.at(0), 5, flags)); });
    }
}

void words_off_their_place(Driver& driver, Answers& answers) {
    Workbench bench(driver);
    for (const std::size_t offset : {1U, 2U, 4U}) {
        const std::string at = " at +" + std::to_string(offset);
        answers.ask("write 32" + at,
                    [&] { return bench.with_sync(driver.stream_write_value32(nullptr, bench.at(offset), 1, 0)); });
        answers.ask("write 64" + at,
                    [&] { return bench.with_sync(driver.stream_write_value64(nullptr, bench.at(offset), 1, 0)); });
    }
    for (const std::size_t offset : {1U, 2U, 4U}) {
        const std::string at = " at +" + std::to_string(offset);
        answers.ask("wait 32" + at, [&] {  // for what is true of any word
            return bench.with_sync(driver.stream_wait_value32(nullptr, bench.at(offset), 0, CU_STREAM_WAIT_VALUE_NOR));
        });
        answers.ask("wait 64" + at, [&] {
            return bench.with_sync(driver.stream_wait_value64(nullptr, bench.at(offset), 0, CU_STREAM_WAIT_VALUE_NOR));
        });
    }
    answers.ask("write at 0", [&] { return bench.with_sync(driver.stream_write_value32(nullptr, 0, 1, 0)); });
    answers.ask("write past the end",
                [&] { return bench.with_sync(driver.stream_write_value32(nullptr, bench.at(kTwoMiB), 1, 0)); });
}

void nothing_to_do(Driver& driver, Answers& answers) {
    Workbench bench(driver);
    char byte = 0;
    answers.ask("copy of 0 bytes", [&] { return driver.memcpy_htod(bench.at(0), &byte, 0); });
    answers.ask("copy of 0 bytes to 0", [&] { return driver.memcpy_htod(0, &byte, 0); });
    answers.ask("copy of 0 bytes from null", [&] { return driver.memcpy_htod(bench.at(0), nullptr, 0); });
    answers.ask("copy of 1 byte from null", [&] { return driver.memcpy_htod(bench.at(0), nullptr, 1); });
    answers.ask("memset of 0 bytes", [&] { return driver.memset_d8(bench.at(0), 1, 0); });
    answers.ask("memset of 0 bytes at 0", [&] { return driver.memset_d8(0, 1, 0); });
    answers.ask("async copy of 0 bytes", [&] { return driver.memcpy_async(0, 0, 0, nullptr); });
    answers.ask("async memset of 0 bytes", [&] { return driver.memset_d8_async(0, 1, 0, nullptr); });
}

// Memory that the driver did not make, where it may be what it wants to be the device's. Each may lose the context.
Questions heap_questions() {
    using Use = std::function<CUresult(Workbench&, CUdeviceptr)>;
    const std::pair<const char*, Use> uses[] = {
        {"cuMemcpy to", [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy(heap, bench.at(0), 64); }},
        {"cuMemcpy from",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy(bench.at(0), heap, 64); }},
        {"cuMemcpy within",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy(heap, heap + 1024, 64); }},
        {"cuMemcpyAsync within",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy_async(heap, heap + 1024, 64, nullptr); }},
        {"HtoD to",
         [](Workbench& bench, CUdeviceptr heap) {
             const char bytes[64] = {};
             return bench.driver.memcpy_htod(heap, bytes, 64);
         }},
        {"HtoD from",
         [](Workbench& bench, CUdeviceptr heap) {
             return bench.driver.memcpy_htod(bench.at(0), reinterpret_cast<const void*>(heap), 64);
         }},
        {"HtoD with device memory as the host's",
         [](Workbench& bench, CUdeviceptr) {
             return bench.driver.memcpy_htod(bench.at(0), reinterpret_cast<const void*>(bench.at(1024)), 64);
         }},
        {"DtoH from",
         [](Workbench& bench, CUdeviceptr heap) {
             char bytes[64] = {};
             return bench.driver.memcpy_dtoh(bytes, heap, 64);
         }},
        {"DtoD to", [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy_dtod(heap, bench.at(0), 64); }},
        {"DtoD from",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memcpy_dtod(bench.at(0), heap, 64); }},
        {"memset of", [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memset_d8(heap, 1, 64); }},
        {"async memset of",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.memset_d8_async(heap, 1, 64, nullptr); }},
        {"write-value to",
         [](Workbench& bench, CUdeviceptr heap) { return bench.driver.stream_write_value32(nullptr, heap, 1, 0); }},
        {"wait-value for", [](Workbench& bench, CUdeviceptr heap) {
             return bench.driver.stream_wait_value32(nullptr, heap, 0, CU_STREAM_WAIT_VALUE_EQ);
         }}};
    Questions questions;
    for (const auto& [name, use] : uses) {
        questions.push_back({std::string(name) + " the heap", [use = use](Driver& driver, Answers& answers) {
                                 Workbench bench(driver);
                                 const auto heap = std::make_unique<std::uint64_t[]>(512);
                                 const auto address = reinterpret_cast<CUdeviceptr>(heap.get());
                                 answers.ask("code, and of the work",
                                             [&] { return bench.with_sync(use(bench, address)); });
                             }});
    }
    return questions;
}

// Calls that free memory while a stream is held up: those that wait for it never come back.
Questions waiting_frees() {
    using Use = std::function<CUresult(Driver&)>;
    const auto allocated = std::make_shared<CUdeviceptr>(0);
    const auto pinned = std::make_shared<void*>(nullptr);
    const std::pair<const char*, Use> uses[] = {
        {"cuMemFree", [allocated](Driver& driver) { return driver.mem_free(*allocated); }},
        {"cuMemFreeHost", [pinned](Driver& driver) { return driver.mem_free_host(*pinned); }},
        {"cuMemAlloc",
         [allocated](Driver& driver) { return driver.mem_alloc(allocated.get(), std::size_t{64} << 20); }},
        {"cuMemAllocHost", [pinned](Driver& driver) { return driver.mem_alloc_host(pinned.get(), 4096); }},
        {"the whole life of a mapping", [](Driver& driver) {
             Mapped memory(driver, device_memory(kFabric), {access_for(kDevice)});
             return memory.result() == CUDA_SUCCESS ? memory.destroy() : memory.result();
         }}};
    Questions questions;
    for (const auto& [name, use] : uses) {
        questions.push_back({std::string(name) + " while a stream is held up",
                             [use = use, allocated, pinned](Driver& driver, Answers& answers) {
                                 Workbench bench(driver);
                                 driver.mem_alloc(allocated.get(), 4096);
                                 driver.mem_alloc_host(pinned.get(), 4096);
                                 const CUstream stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
                                 block(bench, stream);
                                 answers.ask("answer", [&] { return use(driver); });
                                 answers.ask("the stream", [&] { return settled(driver, stream); });
                                 unblock(bench, new_stream(driver, CU_STREAM_NON_BLOCKING));
                             }});
    }
    return questions;
}

// What a call does to a capture: its code, the capture's status, and the code of the capture's end.
void during_a_capture(Driver& driver, Answers& answers, unsigned int stream_flags, CUstreamCaptureMode mode) {
    Workbench bench(driver);
    const CUstream other = new_stream(driver, CU_STREAM_NON_BLOCKING);
    std::uint32_t word = 0;
    CUdeviceptr allocated = 0;
    void* pinned = nullptr;
    CUstream made = nullptr;
    const std::pair<const char*, std::function<CUresult()>> calls[] = {
        {"copy from", [&] { return driver.memcpy_dtoh(&word, bench.at(0), 4); }},
        {"copy to", [&] { return driver.memcpy_htod(bench.at(0), &word, 4); }},
        {"memset", [&] { return driver.memset_d8(bench.at(0), 1, 4); }},
        {"async memset on the null stream", [&] { return driver.memset_d8_async(bench.at(0), 1, 4, nullptr); }},
        {"async memset elsewhere", [&] { return driver.memset_d8_async(bench.at(0), 1, 4, other); }},
        {"query of another stream", [&] { return driver.stream_query(other); }},
        {"query of the null stream", [&] { return driver.stream_query(nullptr); }},
        {"synchronize of another stream", [&] { return driver.stream_synchronize(other); }},
        {"synchronize of the context", [&] { return driver.ctx_synchronize(); }},
        {"cuMemAlloc", [&] { return driver.mem_alloc(&allocated, 4096); }},
        {"cuMemFree", [&] { return driver.mem_free(allocated); }},
        {"cuMemAllocHost", [&] { return driver.mem_alloc_host(&pinned, 4096); }},
        {"cuMemFreeHost", [&] { return driver.mem_free_host(pinned); }},
        {"new stream", [&] { return driver.stream_create(&made, CU_STREAM_NON_BLOCKING); }},
        {"destroy of another stream", [&] { return driver.stream_destroy(made); }}};
    for (const auto& [name, call] : calls) {
        const CUstream stream = new_stream(driver, stream_flags);
        answers.ask(name, [&, &call = call] {
            const CUresult begun = driver.stream_begin_capture(stream, mode);
            const CUresult result = call();
            CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
            driver.stream_is_capturing(stream, &status);
            CUgraph graph = nullptr;
            const CUresult ended = driver.stream_end_capture(stream, &graph);
            if (graph != nullptr) driver.graph_destroy(graph);
            std::string text = begun == CUDA_SUCCESS ? "" : "begin " + std::to_string(static_cast<int>(begun)) + ", ";
            return text + std::to_string(static_cast<int>(result)) + ", status " +
                   std::to_string(static_cast<int>(status)) + ", end " + std::to_string(static_cast<int>(ended));
        });
    }
}

// On the capturing stream itself.
void captures(Driver& driver, Answers& answers) {
    Workbench bench(driver);
    CUgraph graph = nullptr;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    const CUstream stream = new_stream(driver, CU_STREAM_NON_BLOCKING);
    const auto begin = [&](CUstream on) { return driver.stream_begin_capture(on, CU_STREAM_CAPTURE_MODE_GLOBAL); };
    answers.ask("end without a begin", [&] { return driver.stream_end_capture(stream, &graph); });
    answers.ask("begin on the null stream", [&] { return begin(nullptr); });
    answers.ask("begin", [&] { return begin(stream); });
    answers.ask("begin again", [&] { return begin(stream); });
    answers.ask("is the null stream capturing", [&] { return driver.stream_is_capturing(nullptr, &status); });
    answers.ask("wait-value", [&] { return driver.stream_wait_value32(stream, bench.at(0), 0, 1); });
    answers.ask("write-value", [&] { return driver.stream_write_value32(stream, bench.at(0), 1, 0); });
    answers.ask("query", [&] { return driver.stream_query(stream); });
    answers.ask("synchronize", [&] { return driver.stream_synchronize(stream); });
    answers.ask("end", [&] { return driver.stream_end_capture(stream, &graph); });
    answers.say("a graph", yes_or_no(graph != nullptr));
    const CUstream second = new_stream(driver, CU_STREAM_NON_BLOCKING);
    answers.ask("begin on another", [&] { return begin(second); });
    answers.ask("destroy of the capturing stream", [&] { return driver.stream_destroy(second); });
    answers.ask("destroy of no graph", [&] { return driver.graph_destroy(nullptr); });
}

}  // namespace

Questions questions_of_streams() {
    Questions questions = waiting_questions();
    const auto append = [&](Questions more) {
        for (Question& question : more) questions.push_back(std::move(question));
    };
    append({{"a stream destroyed with work", destroyed_with_work},
            {"flags of streams and words", stream_flags},
            {"words off their place", words_off_their_place},
            {"nothing to do", nothing_to_do}});
    append(strange_streams());
    append(heap_questions());
    append(waiting_frees());
    append({{"a capture and calls beside it, non-blocking, global",
             [](Driver& driver, Answers& answers) {
                 during_a_capture(driver, answers, CU_STREAM_NON_BLOCKING, CU_STREAM_CAPTURE_MODE_GLOBAL);
             }},
            {"a capture and calls beside it, blocking, global",
             [](Driver& driver, Answers& answers) {
                 during_a_capture(driver, answers, CU_STREAM_DEFAULT, CU_STREAM_CAPTURE_MODE_GLOBAL);
             }},
            {"a capture and calls beside it, blocking, relaxed",
             [](Driver& driver, Answers& answers) {
                 during_a_capture(driver, answers, CU_STREAM_DEFAULT, CU_STREAM_CAPTURE_MODE_RELAXED);
             }},
            {"captures", captures}});
    return questions;
}

}  // namespace fabricmem::test
