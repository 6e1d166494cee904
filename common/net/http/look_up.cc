#include "common/net/http/look_up.h"

#include <fmt/format.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "common/base/threads.h"

namespace engram::net {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

// Shared by the thread that looks up and the caller, of which either may end first.
struct Search {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool done = false;
  error_code error;
  std::vector<tcp::endpoint> found;
};

std::atomic<int> searches_under_way = 0;

void Resolve(const io::HostPort& to, Search& search) {
  std::vector<tcp::endpoint> found;
  error_code error;
  try {
    boost::asio::io_context loop(1);
    for (const auto& entry : tcp::resolver(loop).resolve(to.host, std::to_string(to.port), error)) {
      found.push_back(entry.endpoint());
    }
  } catch (const boost::system::system_error& failed) {  // no descriptor for the loop
    error = failed.code();
  }
  const std::lock_guard lock(search.mutex);
  search.found = std::move(found);
  search.error = error;
  search.done = true;
  search.changed.notify_all();
}

}  // namespace

Result<std::vector<tcp::endpoint>> LookUp(const io::HostPort& to, TimePoint deadline,
                                          const std::stop_token& stop) {
  error_code no_number;
  const auto number = boost::asio::ip::make_address(to.host, no_number);
  if (!no_number) return std::vector<tcp::endpoint>{{number, to.port}};

  if (searches_under_way.fetch_add(1) >= kLookUpsMax) {
    searches_under_way.fetch_sub(1);
    return ResourceExhausted(fmt::format(
        "{} names are being looked up already; does the resolver answer?", kLookUpsMax));
  }
  const auto search = std::make_shared<Search>();  // the thread's and the caller's
  auto thread = StartThread("look up", [to, search] {
    Resolve(to, *search);
    searches_under_way.fetch_sub(1);
  });
  if (!thread.ok()) {
    searches_under_way.fetch_sub(1);
    return thread.status();
  }
  thread->detach();
  std::unique_lock lock(search->mutex);
  search->changed.wait_until(lock, stop, deadline, [&] { return search->done; });
  if (stop.stop_requested()) return Cancelled("stopped");
  if (!search->done) return DeadlineExceeded("the resolver does not answer");
  if (search->error) return Unavailable(search->error.message());
  return std::move(search->found);
}

}  // namespace engram::net
