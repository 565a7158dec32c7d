// SPDX-License-Identifier: Apache-2.0
// What a test and the fake NVML (fake_nvml.cpp, a module that is loaded at run time) say to each other.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

struct FakeNvml {
    struct Device {
        std::uint32_t domain = 0;
        std::uint32_t bus = 0x1b;
        std::uint32_t device = 0;
        std::string uuid = "GPU-20212223-2425-2627-2829-2a2b2c2d2e2f";
        std::string name = "NVIDIA H100 80GB HBM3";
        std::uint8_t state = 3;
        int status = 0;
        std::array<std::uint8_t, 16> cluster{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
        std::uint32_t clique = 0x00c0ffee;
        std::uint32_t health = 0xaa;  // one less in the second version of the info, so that a test can tell them apart
        std::uint64_t recovery_action = 0;
    };
    struct Control {
        int init_result = 0;
        bool answers_v3 = true;
        bool answers_v2 = true;
        bool answers_v1 = true;
        // Of all devices, where they are given.
        std::optional<std::uint8_t> state{};
        std::optional<int> status{};

        std::string driver_version = "580.159.04";
        std::vector<Device> devices{Device{}};
        std::optional<std::uint32_t> count{};  // which is not that of the devices
        int value_type = 1;                    // of the recovery action: nvmlValueType_t
        int field_result = 0;                  // of the recovery action, where the call itself succeeds
        std::vector<std::string> failing{};    // calls that answer NVML_ERROR_UNKNOWN
        std::string hanging{};                 // the call that never returns
        bool garbage_texts = false;            // without a terminator
        bool garbage_numbers = false;          // absurd ones
    };
    Control control{};
    int inits = 0;
    int shutdowns = 0;
    int calls = 0;
};

/// The symbol of the module by which a test gets at it: `FakeNvml* fake_nvml()`.
inline constexpr const char* kFakeNvml = "fake_nvml";

/// Reads the file that FABRICMEM_FAKE_NVML names, in the fake that is built as libnvidia-ml.so.1 (fake_nvml_file.cpp).
/// False, and a line on stderr, for a file that can't be read or has a line that is not understood.
bool read_fake_nvml_file(FakeNvml::Control& control);
