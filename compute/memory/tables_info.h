// Which tables this engine's rows come from, and how far they are known to be its checkpoint's: for
// the log, /version, the metrics and the page.
#pragma once

#include <string>

namespace engram::compute {

struct TablesInfo {
  bool any = false;            // the model has Engram layers
  bool remote = false;         // rows come from memory nodes, else out of the model folder itself
  std::string version;         // as the nodes report; empty in this process
  std::string content_digest;  // the same
  // What of the nodes' tables was compared with this engine's: "rows" of the model folder, "digest"
  // (the one the engine insists on), "rows+digest", or "nothing".
  std::string compared = "nothing";
};

}  // namespace engram::compute
