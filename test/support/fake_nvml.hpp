// SPDX-License-Identifier: Apache-2.0
// What a test and the fake NVML (fake_nvml.cpp, a module that is loaded at run time) say to each other.
#pragma once

#include <cstdint>

struct FakeNvml {
    struct Control {
        int init_result = 0;
        bool answers_v3 = true;
        bool answers_v2 = true;
        bool answers_v1 = true;
        std::uint8_t state = 3;
        int status = 0;
    };
    // What it knows: the device 0000:1b:00.0, cluster UUID 01 02 .. 10, clique 0x00c0ffee, health 0xaa.
    Control control{};
    int inits = 0;
    int shutdowns = 0;
    int calls = 0;
};

/// The symbol of the module by which a test gets at it: `FakeNvml* fake_nvml()`.
inline constexpr const char* kFakeNvml = "fake_nvml";
