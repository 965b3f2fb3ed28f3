/// The list of versions.
#include <doctest/doctest.h>

#include <rwkv/block/version.hpp>

#include <string_view>

using namespace rwkv;

namespace {

struct Variant : V6 {
  using Gate = NoGate;
};
struct OtherCell : V6 {
  using Cell = WKV7;
};
struct OfNobody {
  using Cell = WKV4;
};

}  // namespace

TEST_CASE("a version is called by its name") {
  for (const OfficialVersion* version : official_versions) {
    CHECK(with_version(version->name, []<class V>(V) { return &V::official; }) == version);
  }
  for (const std::string_view name : {"RWKV-8", "RWKV-5", "7", ""}) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(with_version(name, [](auto) {}), doctest::Contains("there is no version"), Error);
  }
}

TEST_CASE("a variant is of the version that it is derived from, unless it has another recurrence") {
  CHECK(official_version<Variant>() == &V6::official);
  CHECK(official_version<OtherCell>() == nullptr);
  CHECK(official_version<OfNobody>() == nullptr);
}
