// Status and Result<T>: how operating errors travel. Every function that can fail for a reason
// outside the program returns one of them; programmer errors use CHECK (check.h). No exceptions
// across our functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "common/base/check.h"

namespace engram {

// The one table of codes. The message says what was tried, on what, and the value; the code says
// which side can act.
enum class Code : int {
  kOk = 0,
  kInvalidArgument = 1,     // the caller's input is wrong; trying again will not help
  kNotFound = 2,            // a file, tensor, table or key does not exist
  kAlreadyExists = 3,       // a port in use, a version already published
  kFailedPrecondition = 4,  // identities, versions or settings do not match
  kOutOfRange = 5,          // a row id or offset past the end
  kUnavailable = 6,         // a peer cannot be reached or died
  kDeadlineExceeded = 7,    // no answer in the time allowed
  kResourceExhausted = 8,   // a configured limit was reached
  kDataLoss = 9,            // a checksum or digest does not match
  kCancelled = 10,          // shutting down, or the client went away
  kInternal = 11,           // a library failed in a way we did not expect
};

std::string_view CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // "INVALID_ARGUMENT: ..." for logs; message() alone is what a person at a terminal is shown.
  std::string ToString() const;
  // The same error with "context: " in front: what was being tried when it happened.
  Status WithContext(std::string_view context) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }
inline Status InvalidArgument(std::string m) { return {Code::kInvalidArgument, std::move(m)}; }
inline Status NotFound(std::string m) { return {Code::kNotFound, std::move(m)}; }
inline Status AlreadyExists(std::string m) { return {Code::kAlreadyExists, std::move(m)}; }
inline Status FailedPrecondition(std::string m) {
  return {Code::kFailedPrecondition, std::move(m)};
}
inline Status OutOfRange(std::string m) { return {Code::kOutOfRange, std::move(m)}; }
inline Status Unavailable(std::string m) { return {Code::kUnavailable, std::move(m)}; }
inline Status DeadlineExceeded(std::string m) { return {Code::kDeadlineExceeded, std::move(m)}; }
inline Status ResourceExhausted(std::string m) { return {Code::kResourceExhausted, std::move(m)}; }
inline Status DataLoss(std::string m) { return {Code::kDataLoss, std::move(m)}; }
inline Status Cancelled(std::string m) { return {Code::kCancelled, std::move(m)}; }
inline Status InternalError(std::string m) { return {Code::kInternal, std::move(m)}; }

// A value or the reason there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<1>, std::move(value)) {}
  Result(Status status) : state_(std::in_place_index<0>, std::move(status)) {
    CHECK(!std::get<0>(state_).ok()) << "a Result without a value needs an error";
  }

  bool ok() const { return state_.index() == 1; }
  Status status() const { return ok() ? Status() : std::get<0>(state_); }

  T& value() & { return CheckOk(), std::get<1>(state_); }
  const T& value() const& { return CheckOk(), std::get<1>(state_); }
  T&& value() && { return CheckOk(), std::get<1>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  void CheckOk() const { CHECK(ok()) << std::get<0>(state_).ToString(); }
  std::variant<Status, T> state_;
};

// RETURN_IF_ERROR(expr): return the Status of `expr` from this function unless it is ok.
#define RETURN_IF_ERROR(expr)                                                                  \
  do {                                                                                         \
    if (::engram::Status engram_status_ = (expr); !engram_status_.ok()) return engram_status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, expr): x = the value of the Result `expr`, or return its Status.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ENGRAM_ASSIGN_OR_RETURN_(ENGRAM_CONCAT_(engram_result_, __LINE__), lhs, expr)
#define ENGRAM_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = std::move(tmp).value()
#define ENGRAM_CONCAT_(a, b) ENGRAM_CONCAT_INNER_(a, b)
#define ENGRAM_CONCAT_INNER_(a, b) a##b

}  // namespace engram
