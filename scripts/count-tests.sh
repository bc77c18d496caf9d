#!/bin/sh
# Prints how many named tests show each invariant, fault and bad input of the contract, and which of
# those that the store must show have none. A test's name says what it shows by how it begins:
# i02_..., i02_i14_..., fault_13_..., faults_07_and_08_..., bad_input_27_..., bad_inputs_01_to_08_...
# Ends with 1 when something has no test.
set -eu
cd "$(dirname "$0")/.."

find . -name '*.rs' -not -path './target/*' -exec cat {} + | awk '
# Tests only: an attribute that ends in "test", then the function.
/^[ \t]*#\[([a-z_]+::)*test([ \t]*\(.*\))?\]/ { is_test = 1; next }
/^[ \t]*(async[ \t]+|pub[ \t]+)*fn [a-z0-9_]+/ {
    if (is_test) {
        name = $0
        sub(/^[ \t]*(async[ \t]+|pub[ \t]+)*fn /, "", name)
        sub(/[^a-z0-9_].*$/, "", name)
        read_name(name)
    }
    is_test = 0
}

function shown(kind, number) { count[kind, number + 0]++ }

# Reads the beginning of a name, as long as it is made of kinds, two-digit numbers, "and" and "to".
function read_name(name,    words, total, i, word, kind, last, range, n) {
    total = split(name, words, "_")
    kind = ""; last = -1; range = 0
    for (i = 1; i <= total; i++) {
        word = words[i]
        if (word ~ /^i[0-9][0-9]$/) { shown("i", substr(word, 2)); kind = ""; range = 0 }
        else if (word == "fault" || word == "faults") { kind = "fault"; last = -1 }
        else if (word == "bad" && words[i + 1] ~ /^inputs?$/) { kind = "bad_input"; last = -1; i++ }
        else if (kind != "" && word ~ /^[0-9][0-9]$/) {
            if (range) for (n = last + 1; n < word + 0; n++) shown(kind, n)
            shown(kind, word); last = word + 0; range = 0
        }
        else if (i == 1 && word == "root") continue
        else if (word == "to" && last >= 0) range = 1
        else if (word != "and") return
    }
}

function report(kind, from, to, skipped,    n, label) {
    for (n = from; n <= to; n++) {
        if (index(skipped, " " n " ")) continue
        label = sprintf("%s%s%02d", kind, kind == "i" ? "" : "_", n)
        printf "%-14s %d\n", label, count[kind, n]
        if (!count[kind, n]) missing = missing " " label
        tests += count[kind, n]
    }
}

END {
    report("i", 1, 33, " 19 22 25 26 27 28 29 ")
    report("fault", 1, 29, " ")
    report("bad_input", 1, 44, " 42 43 ")
    printf "\nnamed tests, counted once for each thing they show: %d\n", tests
    if (missing == "") { print "everything has a test"; exit 0 }
    print "without a test:" missing
    exit 1
}'
