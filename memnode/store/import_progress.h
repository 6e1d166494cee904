// What an import has done so far, as records of the store: enough to go on after a kill.
//
//   importing/<id>                  model and version, from before the first page to the manifest
//   import/<id>/purpose             what is imported, for which member, from which files (a digest)
//   import/<id>/<layer>/<first>     the digests of the partitions of one file, from `first` on
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/sha256.h"
#include "common/base/status.h"
#include "memnode/store/row_store.h"

namespace engram::memnode {

struct ImportProgressRecords {
  std::string purpose;  // empty: nothing was begun
  // By layer index and first partition.
  std::map<std::pair<uint32_t, uint32_t>, std::vector<Sha256Digest>> groups;
};

// A damaged record counts as not done.
Result<ImportProgressRecords> ReadImportProgress(RowStore& store, TableSetId id);
// Which version it is of: written first, so that what a killed import leaves is known by name.
RecordChange ImportNameRecord(const std::string& model, const std::string& version);
RecordChange ImportNameGone(TableSetId id);
RecordChange ImportPurposeRecord(TableSetId id, const std::string& purpose);
RecordChange ImportGroupRecord(TableSetId id, uint32_t layer_index, uint32_t first,
                               std::span<const Sha256Digest> digests);
// The changes that remove all of it but the name.
Result<std::vector<RecordChange>> ImportProgressGone(RowStore& store, TableSetId id);
Status DropImportProgress(RowStore& store, TableSetId id);

// A version that has pages or progress and no manifest: its import is under way, or was stopped.
struct IncompleteImport {
  TableSetId id = 0;
  std::string model, version;
};
Result<std::vector<IncompleteImport>> IncompleteImports(RowStore& store);
Result<bool> IsIncomplete(RowStore& store, const std::string& model, const std::string& version);
// DATA_LOSS: pages lie in the store that no record names, so that its records were lost. `where`
// is the store's folder.
Status CheckPagesAreNamed(RowStore& store, const std::string& where);

}  // namespace engram::memnode
