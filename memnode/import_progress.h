// What an import has done so far, as records of the store: enough to go on after a kill.
//
//   import/<id>/purpose             what is being imported, for whom, from which files (a digest)
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
#include "memnode/row_store.h"

namespace engram::memnode {

struct ImportProgressRecords {
  std::string purpose;  // empty: nothing was begun
  // By layer index and first partition.
  std::map<std::pair<uint32_t, uint32_t>, std::vector<Sha256Digest>> groups;
};

// A damaged record counts as not done.
Result<ImportProgressRecords> ReadImportProgress(RowStore& store, TableSetId id);
RecordChange ImportPurposeRecord(TableSetId id, const std::string& purpose);
RecordChange ImportGroupRecord(TableSetId id, uint32_t layer_index, uint32_t first,
                               std::span<const Sha256Digest> digests);
// The changes that remove all of it.
Result<std::vector<RecordChange>> ImportProgressGone(RowStore& store, TableSetId id);
Status DropImportProgress(RowStore& store, TableSetId id);

}  // namespace engram::memnode
