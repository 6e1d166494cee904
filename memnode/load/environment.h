// What a result was measured on: without it a figure means nothing.
#pragma once

#include <cstdint>
#include <string>

namespace engram::memnode::load {

struct Environment {
  std::string kernel;
  std::string cpu_model;
  int64_t cores = 0;  // this process may use
  std::string transparent_huge_pages;
  int64_t huge_pages_reserved = 0;
  std::string load_average;  // before the run
  std::string build;         // type, compiler, sanitizer
  std::string version;
  std::string command_line;
  std::string started_utc;
};

Environment ReadEnvironment(std::string command_line);
std::string ReadLoadAverage();  // "0.10 0.20 0.30", or "?"

}  // namespace engram::memnode::load
