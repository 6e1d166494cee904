// Configuration: a struct with defaults, the same keys in YAML, `--set a.b=c` on top. An unknown
// key is an error that names the nearest one; every value in force can be printed. The only place
// that includes yaml-cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/status.h"

namespace engram::config {

// The keys of one program. A config struct fills it with pointers to its own members:
//   void Describe(config::Fields& f) { f.Add("store.path", &store_path, "folder of the RocksDB
//   store"); }
class Fields {
 public:
  using Target = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*>;
  void Add(std::string dotted_key, Target target, std::string help);
  // An integer or float with limits; a value outside is an error that names them.
  void Add(std::string dotted_key, int64_t* target, int64_t min, int64_t max, std::string help);

  struct Field {
    std::string key;
    Target target;
    std::string help;
    int64_t min = INT64_MIN;
    int64_t max = INT64_MAX;
  };
  const std::vector<Field>& all() const { return fields_; }

 private:
  std::vector<Field> fields_;
};

// Reads the YAML file (skipped when the path is empty), then applies each "a.b=value".
// INVALID_ARGUMENT names the file or option, the key, the value, what was expected, and for an
// unknown key the nearest known one.
Status Load(const std::string& yaml_path, std::span<const std::string> overrides, Fields& fields);
Status LoadText(std::string_view yaml, std::string_view what, Fields& fields);

// Every key with its value in force, as YAML that Load accepts. `with_help` puts the help text
// above each key.
std::string Dump(const Fields& fields, bool with_help);

}  // namespace engram::config
