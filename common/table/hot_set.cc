#include "common/table/hot_set.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>

#include "common/base/crc32c.h"
#include "common/base/sha256.h"
#include "common/io/mmap_file.h"
#include "common/table/engram_config.h"

namespace engram::table {
namespace {

constexpr std::string_view kMagic = "ENGRHOT\n";
constexpr size_t kDigestHexBytes = 64;

// The file, little-endian throughout: this in front, the corpus' text, then of each order the
// n-grams and the counts, at last the CRC-32C of all before it.
struct Header {
  std::array<char, 8> magic = {};
  uint32_t format = 0;
  uint32_t max_ngram_size = 0;
  uint64_t compressed_vocab_size = 0;
  int64_t pad_compressed = 0;
  std::array<char, kDigestHexBytes> token_map_digest = {};  // zeros: not known
  uint64_t tokens_counted = 0;
  uint32_t corpus_bytes = 0;
  uint32_t reserved = 0;
  std::array<uint64_t, kMaxNgramSizeMax - 1> ngrams = {};  // of n = 2, 3, ...; 0 beyond N
};
static_assert(sizeof(Header) == 168 && std::endian::native == std::endian::little);

Status CheckHeader(const Header& header) {
  if (header.max_ngram_size < 2 || header.max_ngram_size > kMaxNgramSizeMax) {
    return DataLoss(fmt::format("n-grams of up to {} tokens, not of 2 to {}", header.max_ngram_size,
                                kMaxNgramSizeMax));
  }
  if (header.compressed_vocab_size < 1 || header.compressed_vocab_size > kCompressedVocabMax) {
    return DataLoss(fmt::format("a vocabulary of {} ids, not of 1 to {}",
                                header.compressed_vocab_size, kCompressedVocabMax));
  }
  if (header.pad_compressed < 0 ||
      static_cast<uint64_t>(header.pad_compressed) >= header.compressed_vocab_size) {
    return DataLoss(fmt::format("a pad id {} outside the vocabulary of {}", header.pad_compressed,
                                header.compressed_vocab_size));
  }
  if (header.corpus_bytes > kHotSetCorpusBytesMax) {
    return DataLoss(fmt::format("{} bytes about the corpus, more than {}", header.corpus_bytes,
                                kHotSetCorpusBytesMax));
  }
  uint64_t room = kHotSetNgramsMax;
  for (size_t i = 0; i < header.ngrams.size(); ++i) {
    if (header.ngrams[i] > (i + 2 <= header.max_ngram_size ? room : 0)) {
      return DataLoss(
          fmt::format("{} n-grams of {} tokens, more than may be", header.ngrams[i], i + 2));
    }
    room -= header.ngrams[i];
  }
  return OkStatus();
}

Status CheckOrder(const HotSet& hot_set, size_t n, const HotSet::Order& order) {
  if (order.ids.size() != order.counts.size() * n) {
    return DataLoss(fmt::format("{} ids for {} n-grams of {} tokens", order.ids.size(),
                                order.counts.size(), n));
  }
  const auto beyond = std::find_if(order.ids.begin(), order.ids.end(), [&](uint32_t id) {
    return id >= hot_set.compressed_vocab_size;
  });
  if (beyond != order.ids.end()) {
    return DataLoss(fmt::format("id {} in an n-gram of {} tokens, outside the vocabulary of {}",
                                *beyond, n, hot_set.compressed_vocab_size));
  }
  if (!std::is_sorted(order.counts.rbegin(), order.counts.rend())) {
    return DataLoss(fmt::format("n-grams of {} tokens that are not sorted by count", n));
  }
  if (!order.counts.empty() && order.counts.back() == 0) {
    return DataLoss(fmt::format("an n-gram of {} tokens that occurred 0 times", n));
  }
  return OkStatus();
}

uint64_t BodyBytes(const Header& header) {
  uint64_t bytes = header.corpus_bytes;
  for (size_t i = 0; i < header.ngrams.size(); ++i) {
    bytes += header.ngrams[i] * ((i + 2) * sizeof(uint32_t) + sizeof(uint64_t));
  }
  return bytes;
}

template <typename T>
void Take(std::span<const std::byte>* from, std::vector<T>* to) {
  if (to->empty()) return;  // memcpy takes no null, not even for nothing
  std::memcpy(to->data(), from->data(), to->size() * sizeof(T));
  *from = from->subspan(to->size() * sizeof(T));
}

Result<Header> ReadHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kMagic.size() ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return DataLoss("it is not a hot set");
  }
  Header header;
  if (bytes.size() < sizeof(header) + sizeof(uint32_t)) {
    return DataLoss(fmt::format("it ends after {} bytes", bytes.size()));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.format != kHotSetFormat) {
    return FailedPrecondition(fmt::format("it has format {}, this program reads {}: count again",
                                          header.format, kHotSetFormat));
  }
  uint32_t expected = 0;
  std::memcpy(&expected, bytes.last(sizeof(expected)).data(), sizeof(expected));
  const uint32_t actual = Crc32c(bytes.first(bytes.size() - sizeof(expected)));
  if (actual != expected) {
    return DataLoss(fmt::format("its checksum is {:08x}, not {:08x}", actual, expected));
  }
  RETURN_IF_ERROR(CheckHeader(header));
  const uint64_t size = sizeof(header) + BodyBytes(header) + sizeof(expected);
  if (bytes.size() != size) {
    return DataLoss(fmt::format("it has {} bytes, not {}", bytes.size(), size));
  }
  return header;
}

Result<HotSet> Parse(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(const Header header, ReadHeader(bytes));
  HotSet hot_set;
  hot_set.max_ngram_size = header.max_ngram_size;
  hot_set.compressed_vocab_size = header.compressed_vocab_size;
  hot_set.pad_compressed = header.pad_compressed;
  if (header.token_map_digest[0] != 0) {
    hot_set.token_map_digest.assign(header.token_map_digest.begin(), header.token_map_digest.end());
  }
  hot_set.tokens_counted = header.tokens_counted;
  bytes = bytes.subspan(sizeof(header));
  hot_set.corpus.assign(reinterpret_cast<const char*>(bytes.data()), header.corpus_bytes);
  bytes = bytes.subspan(header.corpus_bytes);
  for (size_t n = 2; n <= header.max_ngram_size; ++n) {
    HotSet::Order order;
    order.ids.resize(header.ngrams[n - 2] * n);
    order.counts.resize(header.ngrams[n - 2]);
    Take(&bytes, &order.ids);
    Take(&bytes, &order.counts);
    RETURN_IF_ERROR(CheckOrder(hot_set, n, order));
    hot_set.orders.push_back(std::move(order));
  }
  return hot_set;
}

// Everything written so far has its part in the checksum.
class Writer {
 public:
  explicit Writer(std::FILE* file) : file_(file) {}
  void Append(const void* data, size_t size_bytes) {
    if (size_bytes == 0) return;
    crc_ = Crc32c({static_cast<const std::byte*>(data), size_bytes}, crc_);
    ok_ = ok_ && std::fwrite(data, 1, size_bytes, file_) == size_bytes;
  }
  bool Finish() {
    const uint32_t crc = crc_;
    Append(&crc, sizeof(crc));
    return ok_ && std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  }

 private:
  std::FILE* file_;
  uint32_t crc_ = 0;
  bool ok_ = true;
};

bool WriteAll(std::FILE* file, const Header& header, const HotSet& hot_set) {
  Writer writer(file);
  writer.Append(&header, sizeof(header));
  writer.Append(hot_set.corpus.data(), hot_set.corpus.size());
  for (const HotSet::Order& order : hot_set.orders) {
    writer.Append(order.ids.data(), order.ids.size() * sizeof(uint32_t));
    writer.Append(order.counts.data(), order.counts.size() * sizeof(uint64_t));
  }
  return writer.Finish();
}

Result<Header> MakeHeader(const HotSet& hot_set) {
  Header header;
  std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
  header.format = kHotSetFormat;
  header.max_ngram_size = hot_set.max_ngram_size;
  header.compressed_vocab_size = hot_set.compressed_vocab_size;
  header.pad_compressed = hot_set.pad_compressed;
  const std::string& digest = hot_set.token_map_digest;
  if (!digest.empty() && digest.size() != kDigestHexBytes) {
    return InvalidArgument(fmt::format("a token map digest of {} characters", digest.size()));
  }
  std::copy(digest.begin(), digest.end(), header.token_map_digest.begin());
  header.tokens_counted = hot_set.tokens_counted;
  header.corpus_bytes =
      static_cast<uint32_t>(std::min<size_t>(hot_set.corpus.size(), kHotSetCorpusBytesMax + 1));
  if (hot_set.orders.size() + 1 != hot_set.max_ngram_size ||
      hot_set.orders.size() > header.ngrams.size()) {
    return InvalidArgument(fmt::format("{} orders of n-grams of up to {} tokens",
                                       hot_set.orders.size(), hot_set.max_ngram_size));
  }
  for (size_t i = 0; i < hot_set.orders.size(); ++i) {
    header.ngrams[i] = hot_set.orders[i].counts.size();
    const Status valid = CheckOrder(hot_set, i + 2, hot_set.orders[i]);
    if (!valid.ok()) return InvalidArgument(valid.message());
  }
  if (const Status valid = CheckHeader(header); !valid.ok()) {
    return InvalidArgument(valid.message());
  }
  return header;
}

}  // namespace

Result<HotSet> ReadHotSet(const std::string& path) {
  ASSIGN_OR_RETURN(const io::MmapFile file, io::MmapFile::Open(path));
  file.AdviseSequential();
  Result<HotSet> hot_set = Parse(file.bytes());
  RETURN_IF_ERROR(file.CheckUnchanged());
  if (!hot_set.ok()) return hot_set.status().WithContext("hot set " + path);
  return hot_set;
}

Status WriteHotSet(const std::string& path, const HotSet& hot_set) {
  const Result<Header> header = MakeHeader(hot_set);
  if (!header.ok()) return header.status().WithContext("hot set " + path);
  // A device, a pipe or a link is written in place: a file renamed over it would replace it.
  using std::filesystem::file_type;
  std::error_code ignored;
  const file_type type = std::filesystem::symlink_status(path, ignored).type();
  const bool in_place = type == file_type::symlink || type == file_type::character ||
                        type == file_type::block || type == file_type::fifo;
  const std::string temporary = in_place ? path : path + ".part";
  std::FILE* file = std::fopen(temporary.c_str(), "wbe");
  bool done = file != nullptr;
  int error = errno;
  if (done) {
    done = WriteAll(file, *header, hot_set);
    if (!done) error = errno;
    if (std::fclose(file) != 0 && done) {
      done = false;
      error = errno;
    }
    if (done && !in_place && std::rename(temporary.c_str(), path.c_str()) != 0) {
      done = false;
      error = errno;
    }
  }
  if (done) return OkStatus();
  if (file != nullptr && !in_place) std::remove(temporary.c_str());
  return Unavailable(fmt::format("cannot write hot set {}: {}", path, std::strerror(error)));
}

std::string TokenMapDigest(const VocabMap& map) {
  std::vector<int32_t> ids(map.raw_size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(*map.Compress(static_cast<int64_t>(i)));
  }
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(ids)));
  return ToHex(hash.Finish());
}

}  // namespace engram::table
