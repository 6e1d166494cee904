#include "common/client/row_source.h"

namespace engram::client {

std::string_view PathName(Path path) {
  switch (path) {
    case Path::kLocal:
      return "local";
    case Path::kGather:
      return "gather";
    case Path::kOneSided:
      return "one_sided";
  }
  return "?";
}

}  // namespace engram::client
