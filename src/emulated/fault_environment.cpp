// SPDX-License-Identifier: Apache-2.0
// FABRICMEM_FAULTS: rules as text.
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include <fabricmem/error.hpp>
#include <fabricmem/fault_driver.hpp>

#include "text/text.hpp"

namespace fabricmem {
namespace {

constexpr const char* kVariable = "FABRICMEM_FAULTS";

[[noreturn]] void refuse_rule(std::string_view rule, std::string_view why) {
    throw Error({.kind = ErrorKind::bad_argument,
                 .subject = detail::formatted("{}: the rule \"{}\" {}", kVariable, rule, why)});
}

std::string_view trimmed(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

template <typename Number>
Number number_in(std::string_view rule, std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        refuse_rule(rule, detail::formatted("has \"{}\" where a number belongs", text));
    return value;
}

// What stands after `mark`, taken off `text`; empty where there is none.
std::string_view take_after(std::string_view& text, char mark) {
    const std::size_t at = text.rfind(mark);
    if (at == std::string_view::npos) return {};
    const std::string_view taken = text.substr(at + 1);
    text = text.substr(0, at);
    if (taken.empty()) return " ";  // a mark and nothing behind it is no number
    return taken;
}

CUresult result_in(std::string_view rule, std::string_view text) {
    const int number = number_in<int>(rule, text);
    if (number < 1 || number > CUDA_ERROR_UNKNOWN) refuse_rule(rule, "fails with what is no CUresult of a failure");
    return static_cast<CUresult>(number);
}

Fault fault_in(std::string_view rule) {
    Fault fault;
    std::string_view which = rule;
    std::string_view effect = take_after(which, '=');
    if (effect.empty()) refuse_rule(rule, "has no \"=\"");
    const std::string_view argument = take_after(effect, ':');
    if (effect == "fail") {
        if (!argument.empty()) fault.result = result_in(rule, argument);
    } else if (effect == "delay") {
        fault.effect = Fault::Effect::delay;
        fault.delay = std::chrono::microseconds(number_in<std::uint32_t>(rule, argument));
    } else if (effect == "hang" && argument.empty()) {
        fault.effect = Fault::Effect::hang;
    } else {
        refuse_rule(rule, "is none of fail, fail:CURESULT, delay:MICROSECONDS, hang");
    }
    if (const std::string_view chance = take_after(which, '%'); !chance.empty())
        fault.probability = number_in<double>(rule, chance);
    if (const std::string_view number = take_after(which, '#'); !number.empty()) {
        fault.number = number_in<std::uint64_t>(rule, number);
        if (fault.number == 0) refuse_rule(rule, "names call 0: they are counted from 1");
    }
    which = trimmed(which);
    if (which.empty()) refuse_rule(rule, "names no call (* is every one)");
    if (which != "*") fault.call = which;
    return fault;
}

}  // namespace

std::shared_ptr<Driver> with_faults_from_environment(std::shared_ptr<Driver> driver) {
    const char* const text = std::getenv(kVariable);
    if (text == nullptr || trimmed(text).empty()) return driver;
    std::vector<std::string_view> rules;
    std::uint64_t seed = 1;
    for (std::string_view rest = text; !rest.empty();) {
        const std::size_t end = std::min(rest.find(';'), rest.size());
        const std::string_view rule = trimmed(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (rule.substr(0, 5) == "seed=") {
            seed = number_in<std::uint64_t>(rule, rule.substr(5));
        } else if (!rule.empty()) {
            rules.push_back(rule);
        }
    }
    auto faulty = std::make_shared<FaultDriver>(std::move(driver), seed);
    for (const std::string_view rule : rules) {
        Fault fault = fault_in(rule);
        try {
            faulty->add(std::move(fault));
        } catch (const Error& error) {
            refuse_rule(rule, detail::formatted("is refused: {}", error.details().subject));
        }
    }
    return faulty;
}

}  // namespace fabricmem
