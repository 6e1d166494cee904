// The architecture as a test: includes only go down, every third-party library has one home, lines
// stay readable, READMEs name what exists.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct SourceFile {
  std::string path;  // from the repository root
  std::vector<std::string> lines;
};

std::vector<SourceFile> AllSources() {
  const fs::path root = ENGRAM_SOURCE_DIR;
  std::vector<SourceFile> files;
  for (const char* top : {"common", "kernels", "memnode", "compute", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension();
      if (extension != ".cc" && extension != ".h" && extension != ".cu" && extension != ".cuh")
        continue;
      SourceFile file{fs::relative(entry.path(), root), {}};
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) file.lines.push_back(line);
      files.push_back(std::move(file));
    }
  }
  return files;
}

std::string ReadText(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> Includes(const SourceFile& file) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::vector<std::string> found;
  for (const std::string& line : file.lines) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) found.push_back(match[1]);
  }
  return found;
}

// Longest matching prefix wins; a file may include files of its own floor or lower.
const std::vector<std::pair<std::string, int>> kFloors = {
    {"common/base/", 0},       {"common/config/", 1},     {"common/obs/", 1},
    {"common/io/", 1},         {"common/table/", 2},      {"common/text/", 3},
    {"common/checkpoint/", 4}, {"common/net/", 4},        {"common/client/", 5},
    {"kernels/", 6},           {"memnode/store/", 7},     {"memnode/tables/", 8},
    {"memnode/upkeep/", 9},    {"memnode/serve/", 9},     {"memnode/node/", 10},
    {"memnode/main.cc", 11},   {"memnode/load/", 8},      {"memnode/ctl/", 11},
    {"memnode/cluster/", 8},   {"compute/memory/", 7},    {"compute/parallel/", 7},
    {"compute/model/", 8},     {"compute/engine/", 9},    {"compute/api/", 10},
    {"compute/session/", 11},  {"compute/commands/", 12}, {"compute/main.cc", 13},
};

int FloorOf(const std::string& path) {
  for (const auto& [prefix, floor] : kFloors) {
    if (path.starts_with(prefix)) return floor;
  }
  return -1;
}

TEST(Floors, IncludesOnlyGoDown) {
  for (const SourceFile& file : AllSources()) {
    if (file.path.starts_with("tests/")) continue;
    const int floor = FloorOf(file.path);
    ASSERT_GE(floor, 0) << file.path << " is on no floor";
    for (const std::string& include : Includes(file)) {
      const int other = FloorOf(include);
      EXPECT_LE(other, floor) << file.path << " includes " << include;
      if (file.path.starts_with("kernels/") && other >= 0) {
        EXPECT_TRUE(include.starts_with("kernels/") || include.starts_with("common/base/") ||
                    include.starts_with("common/table/"))
            << file.path << " includes " << include << ": kernels know base and table only";
      }
    }
  }
}

TEST(Floors, TheReadmeOfCommonDrawsThem) {
  const std::string readme = ReadText(fs::path(ENGRAM_SOURCE_DIR) / "common/README.md");
  for (const auto& [prefix, floor] : kFloors) {
    const size_t row = readme.find("\n| " + std::to_string(floor) + " | ");
    ASSERT_NE(row, std::string::npos) << "no row of floor " << floor;
    const std::string line = readme.substr(row + 1, readme.find('\n', row + 1) - row - 1);
    EXPECT_NE(line.find("`" + prefix + "`"), std::string::npos) << prefix << " is not in: " << line;
  }
}

TEST(Floors, TheTwoProgramsNeverIncludeEachOther) {
  for (const SourceFile& file : AllSources()) {
    for (const std::string& include : Includes(file)) {
      EXPECT_FALSE(file.path.starts_with("memnode/") && include.starts_with("compute/"))
          << file.path;
      EXPECT_FALSE(file.path.starts_with("compute/") && include.starts_with("memnode/"))
          << file.path;
    }
  }
}

TEST(Floors, EveryLibraryHasOneHome) {
  const std::map<std::string, std::string> homes = {
      {"ucp/", "common/net/"},           {"ucs/", "common/net/"},
      {"uct/", "common/net/"},           {"boost/asio", "common/net/"},
      {"boost/beast", "common/net/"},    {"boost/json", "common/io/"},
      {"rocksdb/", "memnode/"},          {"yaml-cpp/", "common/config/"},
      {"spdlog/", "common/obs/"},        {"prometheus/", "common/obs/"},
      {"unicode/", "common/table/"},     {"pcre2", "common/text/"},
      {"cuda_runtime", "kernels/cuda/"}, {"openssl/sha", "common/base/"},
      {"openssl/evp", "common/"},        {"openssl/ssl", "common/net/"},
  };
  for (const SourceFile& file : AllSources()) {
    if (file.path.starts_with("tests/")) continue;
    for (const std::string& include : Includes(file)) {
      for (const auto& [library, home] : homes) {
        if (include.starts_with(library)) {
          EXPECT_TRUE(file.path.starts_with(home)) << file.path << " includes " << include;
        }
      }
    }
  }
}

// A thread that cannot start must be an error, not the end of the process.
TEST(Floors, EveryThreadStartsInOnePlace) {
  static const std::regex kStart(
      R"(std::(thread|jthread)\s*(\w+\s*)?[({]|std::async\s*\(|thread\w*\s*[({]\s*\[)");
  for (const SourceFile& file : AllSources()) {
    if (file.path.starts_with("tests/") || file.path == "common/base/threads.cc") continue;
    for (const std::string& line : file.lines) {
      EXPECT_FALSE(std::regex_search(line, kStart)) << file.path << ": " << line;
    }
  }
}

// Long files are shown, not refused: one cut in two to stay under a limit is no better for it.
TEST(Floors, LinesStayReadable) {
  constexpr size_t kLinesShown = 500;
  constexpr size_t kColumnsMax = 100;
  for (const SourceFile& file : AllSources()) {
    if (file.lines.size() > kLinesShown) {
      std::cout << file.path << " has " << file.lines.size() << " lines\n";
    }
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const auto columns = static_cast<size_t>(std::count_if(
          file.lines[i].begin(), file.lines[i].end(), [](char c) { return (c & 0xc0) != 0x80; }));
      EXPECT_LE(columns, kColumnsMax) << file.path << ":" << i + 1;
    }
  }
}

// A comment names the thread, caller or peer it speaks of.
TEST(Floors, CommentsSpeakOfNoOneUnnamed) {
  static const std::regex kUnnamed(
      R"(\b(whoever|nobody|somebody|anybody|everybody|someone|anyone|everyone|no one|who|whom)\b)",
      std::regex::icase);
  for (const SourceFile& file : AllSources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const size_t comment = file.lines[i].find("//");
      if (comment == std::string::npos) continue;
      EXPECT_FALSE(std::regex_search(file.lines[i].substr(comment), kUnnamed))
          << file.path << ":" << i + 1 << ": " << file.lines[i];
    }
  }
}

// A path of the repository, from its root or from the README's folder: `common/net/wire.h`,
// `store/page.h`, `tables/`, or a source file alone, `ops.h`.
TEST(Floors, EveryPathAReadmeNamesExists) {
  static const std::regex kName(R"(`([A-Za-z0-9_./-]+)`|\]\(([A-Za-z0-9_./-]+)\))");
  static const std::regex kSource(R"([a-z0-9_.]+\.(h|cc|cu|sh|py|mjs|md))");
  const fs::path root = ENGRAM_SOURCE_DIR;
  std::vector<fs::path> readmes = {root / "README.md", root / "SECURITY.md"};
  for (const char* top :
       {"common", "kernels", "memnode", "compute", "configs", "deploy", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      if (entry.path().extension() == ".md") readmes.push_back(entry.path());
    }
  }
  int named = 0;
  for (const fs::path& readme : readmes) {
    const std::string text = ReadText(readme);
    for (std::sregex_iterator match(text.begin(), text.end(), kName), end; match != end; ++match) {
      const std::string name = (*match)[1].matched ? (*match)[1] : (*match)[2];
      const std::string first = name.substr(0, name.find('/'));
      const bool in_root = name != first && fs::exists(root / first);
      const bool beside = name != first && fs::exists(readme.parent_path() / first);
      if (!in_root && !beside && !std::regex_match(name, kSource)) continue;
      if (first.empty() || first == "build") continue;
      ++named;
      EXPECT_TRUE(fs::exists(root / name) || fs::exists(readme.parent_path() / name))
          << fs::relative(readme, root) << " names " << name;
    }
  }
  EXPECT_GT(named, 100);
}

TEST(Floors, EveryHeaderIsGuardedAndEveryFileSaysWhatItIs) {
  for (const SourceFile& file : AllSources()) {
    if (!file.path.ends_with(".h")) continue;
    ASSERT_FALSE(file.lines.empty()) << file.path;
    EXPECT_TRUE(file.lines[0].starts_with("// ")) << file.path << " has no header comment";
    EXPECT_NE(std::find(file.lines.begin(), file.lines.end(), "#pragma once"), file.lines.end())
        << file.path;
  }
}

}  // namespace
