// Conversations, word for word.
#include "rwkv/text/chat.hpp"

#include <doctest/doctest.h>

#include "rwkv/core/error.hpp"

namespace {

using rwkv::Chat;
using rwkv::Error;

TEST_CASE("what is said comes without empty lines and blanks at its ends") {
  CHECK(Chat::cleaned(" \n\nHello\r\n\r\nyou\n \n") == "Hello\nyou");
  CHECK(Chat::cleaned("a\n  b\rc") == "a\n  b\nc");
  CHECK(Chat::cleaned(" \n ") == "");
  CHECK(Chat::cleaned("") == "");
}

TEST_CASE("conversations are written as the models know them") {
  const Chat world = Chat::named("world");
  CHECK(world.begin("Be\n\nbrief. ") + world.ask("Hi\n") == "System: Be\nbrief.\n\nUser: Hi\n\nAssistant:");
  CHECK(world.begin(" ") == "");
  CHECK(world.separator + world.ask("And?") == "\n\nUser: And?\n\nAssistant:");
  CHECK(world.stops == std::vector<std::string>{"\n\n"});

  CHECK(Chat::named("g1").ask("Hi") == "User: Hi\n\nAssistant:");
  CHECK(Chat::named("g1-think").ask("Hi") == "User: Hi\n\nAssistant: <think");
  CHECK(Chat::named("g1-fake-think").ask("Hi") == "User: Hi\n\nAssistant: <think>\n</think");
  CHECK(Chat::named("g1").stops.size() == 5);
  CHECK(Chat::named("g1-think").stops == Chat::named("g1").stops);

  Chat own = Chat::named("world");
  own.user = "Bob:", own.assistant = "Alice:";
  CHECK(own.ask("Hi") == "Bob: Hi\n\nAlice:");
  CHECK_THROWS_WITH_AS(Chat::named("G1"),
                       "rwkv: there is no chat 'G1'; there are world, g1, g1-think and g1-fake-think", Error);
}

}  // namespace
