// SPDX-License-Identifier: Apache-2.0
// The fake NVML as a libnvidia-ml.so.1, for programs that are run with LD_LIBRARY_PATH on its folder. The file that the
// variable FABRICMEM_FAKE_NVML names says what it answers; it is read by nvmlInit_v2. Without the variable it has one
// device, 0000:1b:00.0. A line is KEY=VALUE, empty, or a comment after '#' at its start; numbers are decimal or 0x:
//
//   driver_version=580.159.04
//   init_result=9                    nvmlReturn_t of nvmlInit_v2
//   fail=nvmlDeviceGetName           answers NVML_ERROR_UNKNOWN; may be there several times
//   hang=nvmlDeviceGetFieldValues    never returns
//   garbage=1                        texts have no terminator, numbers are absurd
//   device=0000:1b:00.0              begins a device, of which the lines below are; DOMAIN:BUS:DEVICE.0 in hexadecimal
//   uuid=GPU-20212223-2425-2627-2829-2a2b2c2d2e2f
//   name=NVIDIA H100 80GB HBM3
//   state=3                          of its fabric info: 0 not supported, 1 not started, 2 in progress, 3 completed
//   status=0                         nvmlReturn_t
//   cluster=0102030405060708090a0b0c0d0e0f10
//   clique=1
//   health=0xaa
//   recovery_action=0
//
// A file without a device line is of a machine without a device.
#include "support/fake_nvml.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace {

bool read_number(const std::string& text, std::uint64_t& number) {
    char* end = nullptr;
    number = std::strtoull(text.c_str(), &end, 0);
    return !text.empty() && *end == '\0';
}

template <typename Number>
bool read_as(const std::string& text, Number& number) {
    std::uint64_t read = 0;
    if (!read_number(text, read)) return false;
    number = static_cast<Number>(read);
    return true;
}

bool read_place(const std::string& text, FakeNvml::Device& device) {
    char end = 0;
    return std::sscanf(text.c_str(), "%x:%x:%x.0%c", &device.domain, &device.bus, &device.device, &end) == 3;
}

bool read_cluster(const std::string& text, FakeNvml::Device& device) {
    if (text.size() != 32) return false;
    for (std::size_t i = 0; i < 16; ++i) {
        char* end = nullptr;
        const std::string digits = text.substr(2 * i, 2);
        device.cluster[i] = static_cast<std::uint8_t>(std::strtoul(digits.c_str(), &end, 16));
        if (*end != '\0') return false;
    }
    return true;
}

bool read_of_device(const std::string& key, const std::string& value, FakeNvml::Device& device) {
    if (key == "uuid")
        device.uuid = value;
    else if (key == "name")
        device.name = value;
    else if (key == "state")
        return read_as(value, device.state);
    else if (key == "status")
        return read_as(value, device.status);
    else if (key == "cluster")
        return read_cluster(value, device);
    else if (key == "clique")
        return read_as(value, device.clique);
    else if (key == "health")
        return read_as(value, device.health);
    else if (key == "recovery_action")
        return read_as(value, device.recovery_action);
    else
        return false;
    return true;
}

bool read_line(const std::string& line, FakeNvml::Control& control) {
    if (line.empty() || line.front() == '#') return true;
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos) return false;
    const std::string key = line.substr(0, equals);
    const std::string value = line.substr(equals + 1);
    if (key == "driver_version")
        control.driver_version = value;
    else if (key == "init_result")
        return read_as(value, control.init_result);
    else if (key == "fail")
        control.failing.push_back(value);
    else if (key == "hang")
        control.hanging = value;
    else if (key == "garbage")
        control.garbage_texts = control.garbage_numbers = value == "1";
    else if (key == "device")
        return read_place(value, control.devices.emplace_back());
    else
        return !control.devices.empty() && read_of_device(key, value, control.devices.back());
    return true;
}

}  // namespace

bool read_fake_nvml_file(FakeNvml::Control& control) {
    const char* const path = std::getenv("FABRICMEM_FAKE_NVML");
    control = {};
    if (path == nullptr) return true;
    control.devices.clear();
    std::ifstream file(path);
    if (!file.is_open()) std::fprintf(stderr, "fake NVML: %s can't be read\n", path);
    std::string line;
    while (std::getline(file, line)) {
        if (read_line(line, control)) continue;
        std::fprintf(stderr, "fake NVML: %s has the line \"%s\"\n", path, line.c_str());
        return false;
    }
    return file.eof();
}
