// Every tensor of a model: name, shape, type and how its values are drawn.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/checkpoint/safetensors.h"
#include "common/table/layout.h"
#include "memnode/ctl/make_model/model_preset.h"

namespace engram::ctl {

struct TensorRule {
  enum class Kind {
    kNormal,    // mean + deviation * normal
    kDiagonal,  // as kNormal, with `mean` on the diagonal of a square matrix only
    kRow,       // table rows: bf16, or fp8 values
    kScale,     // the ue8m0 scales of fp8 rows
  };
  Kind kind = Kind::kNormal;
  float mean = 0;
  float deviation = 1;
};

// Rows from `first_row` on of a procedural table, or their scales alone.
struct ProceduralPart {
  table::RowFormat format;
  uint64_t seed = 0;
  uint32_t layer_index = 0;
  uint64_t first_row = 0;
  bool scales = false;
};

struct ModelTensor {
  io::SafetensorsWriter::Declaration declaration;
  TensorRule rule;
  std::optional<ProceduralPart> procedural = std::nullopt;  // instead of the rule

  uint64_t element_count() const;
  uint64_t size_bytes() const;
};

// Everything but the tables, in layer order.
std::vector<ModelTensor> BackboneTensors(const ModelPreset& preset);

// The table of one layer: its rows, and their scales when they are fp8.
std::vector<ModelTensor> TableTensors(const table::TableLayout& layout,
                                      const table::LayerLayout& layer);

}  // namespace engram::ctl
