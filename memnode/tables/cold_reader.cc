#include "memnode/tables/cold_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/threads.h"
#include "common/obs/log.h"
#include "common/table/row_check.h"

namespace engram::memnode {

ColdBatch::ColdBatch(std::vector<ColdRow> rows, size_t part_count, uint32_t stored_row_bytes,
                     std::function<void()> on_part)
    : rows_(std::move(rows)),
      stored_row_bytes_(stored_row_bytes),
      on_part_(std::move(on_part)),
      bytes_(rows_.size() * stored_row_bytes),
      left_(part_count),
      status_(part_count) {
  for (const ColdRow& row : rows_) ++left_[row.part];
}

Status ColdBatch::status(size_t part) const {
  const std::lock_guard lock(mutex_);
  return status_[part];
}

const std::byte* ColdBatch::Find(size_t part, uint32_t place) const {
  const auto found =
      std::lower_bound(rows_.begin(), rows_.end(), std::pair(part, place),
                       [](const ColdRow& row, const auto& sought) {
                         return std::pair<size_t, uint32_t>(row.part, row.place) < sought;
                       });
  if (found == rows_.end() || found->part != part || found->place != place) return nullptr;
  return bytes_.data() + static_cast<size_t>(found - rows_.begin()) * stored_row_bytes_;
}

std::span<std::byte> ColdBatch::Slot(size_t index) {
  return std::span(bytes_).subspan(index * stored_row_bytes_, stored_row_bytes_);
}

void ColdBatch::Done(uint32_t part, uint32_t count, const Status& status) {
  if (!status.ok()) {
    const std::lock_guard lock(mutex_);
    if (status_[part].ok()) status_[part] = status;
  }
  if (left_[part].fetch_sub(count, std::memory_order_acq_rel) == count) on_part_();
}

ColdReader::ColdReader(const TableReader& reader, RowCache* cache, const Options& options)
    : reader_(reader), cache_(cache), options_(options) {
  const auto wanted = static_cast<size_t>(options.threads);
  const size_t count = std::max<size_t>(ThreadsToBeHad(wanted), 1);
  while (threads_.size() < count && started_.ok()) {
    Result<std::thread> thread = StartThread("cold reader", [this] { Run(); });
    started_ = thread.status();
    if (thread.ok()) threads_.push_back(*std::move(thread));
  }
  if (!threads_.empty()) started_ = OkStatus();
  if (threads_.size() < wanted) {
    obs::LogWarn(
        fmt::format("fewer threads read rows from the store threads={} tiers.readers={}: "
                    "raise ulimit -u or pids.max",
                    threads_.size(), wanted));
  }
}

ColdReader::~ColdReader() {
  std::deque<Job> dropped;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    dropped.swap(jobs_);
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  for (const Job& job : dropped) {
    for (const uint32_t index : job.rows) {
      job.batch->Done(job.batch->rows()[index].part, 1,
                      Cancelled("this memory node gives the table set up"));
    }
  }
}

// The rows that the cache lacks.
std::vector<uint32_t> ColdReader::TakeCached(ColdBatch& batch) {
  std::vector<uint32_t> missing;
  std::vector<uint32_t> found(batch.left_.size());  // by part
  for (uint32_t i = 0; i < batch.rows_.size(); ++i) {
    const ColdRow& row = batch.rows_[i];
    if (cache_ != nullptr && cache_->Get(row.layer_index, row.row, batch.Slot(i).data())) {
      ++found[row.part];
    } else {
      missing.push_back(i);
    }
  }
  pending_rows_ -= batch.rows_.size() - missing.size();
  for (uint32_t part = 0; part < found.size(); ++part) {
    if (found[part] > 0) batch.Done(part, found[part], OkStatus());
  }
  return missing;
}

bool ColdReader::Submit(const std::shared_ptr<ColdBatch>& batch) {
  const std::vector<ColdRow>& rows = batch->rows();
  const size_t pending = pending_rows_.fetch_add(rows.size());
  if (pending > 0 && pending + rows.size() > options_.pending_rows_max) {
    pending_rows_ -= rows.size();
    return false;
  }
  std::vector<uint32_t> order = TakeCached(*batch);
  // Rows of one page are read together; parts keep their order, so that the first leaves first.
  const auto page_of = [&](uint32_t i) {
    return std::pair(rows[i].layer_index, reader_.PageOfRow(rows[i].layer_index, rows[i].row));
  };
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(rows[a].part, page_of(a)) < std::pair(rows[b].part, page_of(b));
  });
  std::deque<Job> jobs;
  for (const uint32_t i : order) {
    const auto [layer_index, page] = page_of(i);
    if (jobs.empty() || jobs.back().page != page || jobs.back().layer_index != layer_index) {
      jobs.push_back({batch, layer_index, page, {}});
    }
    jobs.back().rows.push_back(i);
  }
  {
    const std::lock_guard lock(mutex_);
    for (Job& job : jobs) jobs_.push_back(std::move(job));
  }
  if (jobs.size() == 1) {
    more_.notify_one();
  } else {
    more_.notify_all();
  }
  return true;
}

void ColdReader::Run() {
  std::string scratch;
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      more_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
      if (stop_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    Read(job, &scratch);
  }
}

void ColdReader::Read(const Job& job, std::string* scratch) {
  ++pages_read_;
  ColdBatch& batch = *job.batch;
  const auto page = reader_.ReadPage(job.layer_index, job.page, scratch);
  const uint64_t first = reader_.FirstRowOfPage(job.layer_index, job.page);
  const size_t row_bytes = reader_.row_bytes();
  for (const uint32_t index : job.rows) {
    const ColdRow& row = batch.rows()[index];
    if (page.ok()) {
      const std::span<std::byte> stored = batch.Slot(index);
      std::memcpy(stored.data(), page->data() + (row.row - first) * row_bytes, row_bytes);
      table::SealRow(row.layer_index, row.row, stored);
      if (cache_ != nullptr) cache_->Put(row.layer_index, row.row, stored.data());
    }
    --pending_rows_;
    batch.Done(row.part, 1, page.status());
  }
}

}  // namespace engram::memnode
