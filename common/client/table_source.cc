#include "common/client/table_source.h"

#include "common/client/checkpoint_tables.h"

namespace engram::client {
namespace {

class MappedSource : public TableSource {
 public:
  MappedSource(std::unique_ptr<io::Checkpoint> checkpoint, CheckpointTables tables)
      : checkpoint_(std::move(checkpoint)), tables_(std::move(tables)) {}

  const table::RowFormat& row_format() const override { return tables_.row_format(); }
  uint32_t layer_count() const override { return tables_.layer_count(); }
  uint64_t rows(uint32_t layer_index) const override { return tables_.rows(layer_index); }
  Status ReadRows(uint32_t layer_index, uint64_t first, uint64_t count,
                  std::byte* out) const override {
    tables_.CopyRows(layer_index, first, count, out);
    return OkStatus();
  }
  Status CheckUnchanged() const override { return OkStatus(); }

 private:
  const std::unique_ptr<io::Checkpoint> checkpoint_;
  const CheckpointTables tables_;
};

}  // namespace

Result<std::unique_ptr<TableSource>> OpenTableSource(const std::string& model_dir,
                                                     const ModelTables& model) {
  ASSIGN_OR_RETURN(io::Checkpoint opened, io::Checkpoint::Open(model_dir));
  auto checkpoint = std::make_unique<io::Checkpoint>(std::move(opened));
  ASSIGN_OR_RETURN(CheckpointTables tables, CheckpointTables::Open(checkpoint.get(), model.config));
  RETURN_IF_ERROR(tables.CheckLayout(model.layout));
  return std::unique_ptr<TableSource>(
      std::make_unique<MappedSource>(std::move(checkpoint), std::move(tables)));
}

}  // namespace engram::client
