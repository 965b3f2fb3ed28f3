# What Doxygen reads of a header: awk -f filter.awk conventions.txt HEADER. Lines keep their numbers.
#
# Headers are written to be read as they are, so this says in Doxygen's words what stands there in their own:
#   - the comment above the includes is about the file, and the ABI namespaces are nobody's business;
#   - "Shapes", "Errors", "Aliasing", "Cost" and "Parts" begin a line;
#   - formulas, which stand apart, are set with subscripts and superscripts;
#   - specialisations by a constraint get the argument that the constraint names;
#   - parameters are described by their row in fields();
#   - members that a concept asks for mean the same in all types, so conventions.txt describes them once.

FNR == NR {
  if ($0 == "" || $0 ~ /^#/) next
  split($0, part, "\t")
  path[++rules] = part[1]
  pattern[rules] = part[2]
  sentence[rules] = part[3]
  next
}

{ lines[FNR] = $0; count = FNR }

function escaped(text) {
  gsub(/&/, "\\&amp;", text)
  gsub(/</, "\\&lt;", text)
  gsub(/>/, "\\&gt;", text)
  return text
}

# The formula `text` in HTML: x_t and x_{t-1}, e^x and e^{k + p}. Names such as time_decay stay as they are.
function set(text,   out, inner, kind) {
  text = escaped(text)
  gsub(/  /, "\\&nbsp;\\&nbsp;", text)
  out = ""
  while (match(text, /[_^](\{[^{}]*\}|[A-Za-z0-9]+)/)) {
    kind = substr(text, RSTART, 1) == "_" ? "sub" : "sup"
    inner = substr(text, RSTART + 1, RLENGTH - 1)
    if (inner ~ /^[A-Za-z][A-Za-z]/) inner = substr(text, RSTART, RLENGTH)
    else {
      gsub(/[{}]/, "", inner)
      inner = "<" kind ">" inner "</" kind ">"
    }
    out = out substr(text, 1, RSTART - 1) inner
    text = substr(text, RSTART + RLENGTH)
  }
  return out text
}

function is_comment(n) { return lines[n] ~ /^ *\/\/\// }
function is_apart(n) { return lines[n] ~ /^ *\/\/\/     +[^ ]/ }
# Neither code nor a table of names.
function is_formula(text) {
  return text ~ /[_^=]/ && text !~ /;|\/\/|template|::|\{\.|[a-z][a-z]+_[a-z][a-z]+\(|^[A-Z]?[a-z_<>A-Z]+\([^)]*\)  /
}
function is_template(n) { return lines[n] ~ /^ *template </ }

# What a declaration is, without what stands in front of its return type.
function declared_at(n,   text) {
  text = lines[n]
  while (lines[n] ~ /^ *(template <|requires )/ && n < count) {
    ++n
    text = text " " lines[n]
  }
  return text
}

# The rows of fields(): what official files call a member, and its shape.
function read_fields(   n, text, name, member, shape) {
  for (n = 1; n <= count; ++n) {
    if (match(lines[n], /constexpr Axes [a-z_]+ = shape\([^)]*\)/)) {
      text = substr(lines[n], RSTART + 15, RLENGTH - 15)
      name = text
      sub(/ =.*/, "", name)
      sub(/.*shape/, "shape", text)
      shape_of[name] = text
    }
    if (!match(lines[n], /field\(/)) continue
    text = substr(lines[n], RSTART + 6)
    if (lines[n] !~ /&Params::/) text = text lines[n + 1]
    if (!match(text, /&Params::[a-z_0-9]+/)) continue
    member = substr(text, RSTART + 9, RLENGTH - 9)
    name = substr(text, 1, RSTART - 1)
    sub(/, *$/, "", name)
    gsub(/"/, "", name)
    sub(/^V::/, "", name)
    text = substr(text, RSTART + RLENGTH)
    sub(/^[, ]*/, "", text)
    if (match(text, /^shape\([^)]*\)/)) shape = substr(text, RSTART, RLENGTH)
    else {
      match(text, /^[a-z_A-Z:]+/)
      shape = substr(text, RSTART, RLENGTH)
      if (shape in shape_of) shape = shape_of[shape]
    }
    gsub(/Axis::/, "", shape)
    gsub(/one,/, "1,", shape)
    sub(/^shape\(/, "[", shape)
    sub(/\)$/, "]", shape)
    official[member] = "`" name "`, " shape
  }
}

# A declaration of several members, each with the description of all.
function several(line,   head, text, type, list, k, n, out, indent) {
  if (line !~ /^ +[A-Za-z_:][A-Za-z_0-9:]*.* [&*a-z_][a-z_0-9]*( = [^,;(){}]*)?(, [a-z_][a-z_0-9]*( = [^,;(){}]*)?)+;/) return line
  if (line ~ /^ *(return|using|for|if) |^[^;]*\(/) return line
  text = ""
  head = line
  if (match(line, /; +\/\/\/< /)) {
    text = substr(line, RSTART + RLENGTH)
    head = substr(line, 1, RSTART - 1)
  } else sub(/;.*/, "", head)
  match(head, /^ +/)
  indent = substr(head, 1, RLENGTH)
  head = substr(head, RLENGTH + 1)
  if (match(head, />[ &*]+[a-z_0-9]+( = |,)/)) {
    type = substr(head, 1, RSTART)
    list = substr(head, RSTART + 1)
  } else {
    match(head, / [a-z_0-9]+( = [^,]*)?,/)
    type = substr(head, 1, RSTART - 1)
    list = substr(head, RSTART)
  }
  n = split(list, member, /, */)
  out = indent
  for (k = 1; k <= n; ++k) {
    sub(/^ +/, "", member[k])
    if (text != "") out = out "/** " text " */ "
    else if (k > 1) out = out "/** As the one before. */ "
    out = out type " " member[k] "; "
  }
  return out
}

# The members of Params, each with a description of its own.
function parameters(line,   comment, type, names, k, n, out, indent, list) {
  if (!match(line, /^    [A-Z][A-Za-z]*<[^;]*> [a-z_0-9, ]+;/)) return line
  list = substr(line, RSTART, RLENGTH - 1)
  match(list, /> [a-z_0-9, ]+$/)
  type = substr(list, 1, RSTART)
  names = substr(list, RSTART + 2)
  n = split(names, member, /, */)
  out = ""
  for (k = 1; k <= n; ++k) {
    if (!(member[k] in official)) return line
    out = out "/** " official[member[k]] "; see fields(). */ " type " " member[k] "; "
  }
  return out
}

END {
  file = FILENAME
  read_fields()
  in_params = 0
  for (n = 1; n <= count; ++n) {
    line = lines[n]
    if (line == "#pragma once" && is_comment(n + 1)) line = "/// \\file"
    if (line ~ /^inline namespace RWKV_[A-Z_]+ \{$/) line = "extern \"C++\" {"
    # Doxygen tells specialisations apart by their arguments, not by what they require.
    if (match(line, /^requires .*[ ,]V?[A-Za-z0-9]+>$/)) {
      kind = line
      sub(/>$/, "", kind)
      sub(/.*[ ,]/, "", kind)
    }
    if (kind != "" && line ~ /^class [A-Za-z]+<V, /) sub(/<V, /, "<" kind ", ", line)
    if (line ~ /struct Params/) in_params = 1
    if (line ~ /fields\(\)/) in_params = 0
    if (in_params) line = parameters(line)
    if (!is_comment(n) && (line ~ /\/\/\/</ || is_comment(n - 1))) line = several(line)
    if (is_comment(n)) {
      indent = line
      sub(/\/\/\/.*/, "", indent)
      text = line
      sub(/^ *\/\/\/ */, "", text)
      if (is_apart(n)) {
        if (is_formula(text)) line = indent "/// <span class=\"formula\">" set(text) "</span><br>"
      } else if (text ~ /^(Shapes|Errors|Aliasing|Cost|Parts)  /) {
        head = text
        sub(/ .*/, "", head)
        sub(/^[A-Z][a-z]+ +/, "", text)
        line = indent "/// <br><b>" head "</b> " escaped(text)
      } else if (line !~ /`/ && line !~ /\\file/) {
        line = indent "/// " escaped(text)
      }
    } else if (!is_comment(n - 1) && !is_template(n - 1) && line !~ /\/\/\/</) {
      text = declared_at(n)
      for (k = 1; k <= rules; ++k) {
        if (file ~ path[k] && text ~ pattern[k]) {
          line = "/** " sentence[k] " */ " line
          break
        }
      }
    }
    print line
  }
}
