// Keeps a program sound when standard input, output or error is closed, full, or an unread pipe.
// Called from main.
#pragma once

#include <functional>
#include <string_view>

namespace engram {

// Runs `body`, whose result is the exit code, with all three streams open: a closed one would be
// the next file that is opened, and lines meant for it would be written into that. Output that
// cannot be written, thrown by fmt::print or found at the end, is exit code 1 and one line on
// standard error.
int RunProgram(std::string_view program, const std::function<int()>& body);

// "program: message" on standard error; nothing where that cannot be written.
void PrintError(std::string_view program, std::string_view message);

}  // namespace engram
