// Patterns for tensor names.
#include "rwkv/system/glob.hpp"

#include <doctest/doctest.h>

#include <string>

using rwkv::glob_matches;

TEST_CASE("glob: characters stand for themselves, and the whole name must fit") {
  CHECK(glob_matches("", ""));
  CHECK(glob_matches("head.weight", "head.weight"));
  CHECK(glob_matches("a,b[c]", "a,b[c]"));
  for (const char* name : {"", "head", "head.weigh", "head.weights", "ahead.weight", "head,weight"}) {
    CHECK_FALSE(glob_matches("head.weight", name));
  }
  CHECK_FALSE(glob_matches("", "a"));
}

TEST_CASE("glob: one star and the question mark stop at dots, two stars do not") {
  CHECK(glob_matches("*", ""));
  CHECK(glob_matches("*", "head"));
  CHECK_FALSE(glob_matches("*", "head.weight"));
  CHECK(glob_matches("**", ""));
  CHECK(glob_matches("**", "blocks.3.att.key.weight"));
  CHECK(glob_matches("***", "blocks.3.att.key.weight"));
  CHECK(glob_matches("blocks.*.att.key.weight", "blocks.31.att.key.weight"));
  CHECK_FALSE(glob_matches("blocks.*.key.weight", "blocks.31.att.key.weight"));
  CHECK(glob_matches("blocks.**.weight", "blocks.31.att.key.weight"));
  CHECK(glob_matches("**.time_*", "blocks.0.att.time_mix_k"));
  CHECK_FALSE(glob_matches("**.time_*", "blocks.0.att.time_mix_k.weight"));
  CHECK(glob_matches("**weight", "weight"));
  CHECK(glob_matches("ln?.*", "ln1.bias"));
  CHECK_FALSE(glob_matches("ln?", "ln"));
  CHECK_FALSE(glob_matches("ln?bias", "ln.bias"));
  CHECK(glob_matches("a*b*c", "a-b-b-c"));
  CHECK_FALSE(glob_matches("a*b*c", "a-c-b"));
}

TEST_CASE("glob: braces give alternatives, which may be empty, hold stars and be nested") {
  const std::string pattern = "blocks.*.att.{key,value}.weight";
  CHECK(glob_matches(pattern, "blocks.0.att.key.weight"));
  CHECK(glob_matches(pattern, "blocks.0.att.value.weight"));
  CHECK_FALSE(glob_matches(pattern, "blocks.0.att.receptance.weight"));
  CHECK_FALSE(glob_matches(pattern, "blocks.0.att.key,value.weight"));
  CHECK_FALSE(glob_matches(pattern, "blocks.0.att.keyvalue.weight"));
  CHECK(glob_matches("{emb,head}.weight", "head.weight"));
  CHECK(glob_matches("ln{,_out}", "ln"));
  CHECK(glob_matches("ln{,_out}", "ln_out"));
  CHECK(glob_matches("ln{_out,}", "ln"));
  CHECK(glob_matches("{}", ""));
  CHECK(glob_matches("{a}", "a"));
  CHECK(glob_matches("{a,b}{a,b}", "ba"));
  CHECK(glob_matches("{*.bias,**.time_*}", "blocks.0.att.time_first"));
  for (const char* name : {"a", "bd", "cd", "bed", "ced"}) CHECK(glob_matches("{a,{b,c}{,e}d}", name));
  for (const char* name : {"", "b", "d", "be", "ad", "bc", "a,b", "aed"})
    CHECK_FALSE(glob_matches("{a,{b,c}{,e}d}", name));
}

TEST_CASE("glob: a brace without its partner is an error") {
  CHECK_THROWS_WITH_AS(glob_matches("att.{key,value", ""), "rwkv: the pattern 'att.{key,value' has a { without its }",
                       rwkv::Error);
  CHECK_THROWS_WITH_AS(glob_matches("key}", "key"), "rwkv: the pattern 'key}' has a } without its {", rwkv::Error);
  CHECK_THROWS_AS(glob_matches("{{a}", "a"), rwkv::Error);
}

TEST_CASE("glob: patterns made to be slow are not") {
  std::string stars, groups, nested;
  for (int i = 0; i < 500; ++i) {
    stars += "*a";
    groups += "{a,a,}";
    nested.insert(0, "{a,");
    nested += '}';
  }
  const std::string name(2000, 'a');
  CHECK(glob_matches(stars, name));
  CHECK_FALSE(glob_matches(stars + "b", name));
  CHECK_FALSE(glob_matches(groups, name));
  CHECK(glob_matches(groups, name.substr(0, 500)));
  CHECK_FALSE(glob_matches(nested, name));
  CHECK(glob_matches(nested, ""));
}
