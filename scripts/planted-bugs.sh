#!/bin/sh
# Shows that the tests can fail: plants each bug of e2e/planted/catalogue.tsv in a copy of the committed
# tree and demands that the test named beside it fails by it, after it passed without it.
#   scripts/planted-bugs.sh [PART]   only the bugs whose patch name holds PART
#   scripts/planted-bugs.sh --page   only writes docs/planted-bugs.md from the catalogue
# Needs no root and no network. The copy and what is built of it stay in target/planted, so that a second
# run is faster. Ends with 1 when a bug is not caught or the catalogue does not fit the tree.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
only=${1:-}
catalogue=e2e/planted/catalogue.tsv
page=docs/planted-bugs.md
tab=$(printf '\t')

write_page() {
    cat <<'PAGE'
# Planted bugs

A test that cannot fail shows nothing. So we break the store on purpose, one bug at a time, and demand that the
test named beside the bug fails by it. Each bug is a small patch in [`e2e/planted/`](../e2e/planted); the list is
[`catalogue.tsv`](../e2e/planted/catalogue.tsv), and this page is written from it by `scripts/planted-bugs.sh --page`.

`make planted` runs the whole list: it copies the committed tree to `target/planted`, demands that every test passes
there as it is, then plants each bug, builds (a patch that does not apply or compile is an error of the list, not a
catch), demands that the test fails, and takes the bug out again. It prints a table and ends with 1 when a bug is not
caught. `scripts/planted-bugs.sh 08` plants only the bugs whose name holds `08`. It needs no root and no network.

When a change moves the code below a patch, the run says so: make the same bug again and write it with `git diff -U2`.

| Bug | What is wrong, and what it breaks | Caught by |
|---|---|---|
PAGE
    grep -v '^#' "$catalogue" | while IFS="$tab" read -r patch crate target test text; do
        if [ "$target" = lib ]; then where=$crate; else where="$crate, whole cluster"; fi
        echo "| [${patch%.patch}](../e2e/planted/$patch) | $text | \`$test\` ($where) |"
    done
}

if [ "$only" = --page ]; then
    write_page >"$page"
    exit 0
fi

work=$root/target/planted
tree=$work/tree
logs=$work/logs
# Longest time for one build, and for one test.
BUILD_LIMIT=${BUILD_LIMIT:-1200}
TEST_LIMIT=${TEST_LIMIT:-180}
JOBS=${JOBS:-2}
CARGO=${CARGO:-cargo}
export CARGO_TARGET_DIR="$work/build"

# A work tree of its own, with an index of its own: git writes only the files that differ, so that cargo
# builds again only what changed. The checkout that this runs in is not touched.
commit=$(git rev-parse HEAD)
GIT_DIR=$(git rev-parse --absolute-git-dir)
planted_git() { (cd "$tree" && GIT_DIR="$GIT_DIR" GIT_WORK_TREE="$tree" GIT_INDEX_FILE="$work/index" git "$@"); }
clean_tree() { planted_git read-tree --reset -u "$commit"; }

mkdir -p "$tree" "$logs"
exec 9>"$work/lock"
flock -n 9 || { echo "another run uses $work" >&2; exit 1; }
rm -f "$logs"/*
clean_tree
trap 'clean_tree' EXIT
trap 'exit 130' INT TERM

# cargo's arguments for a target of the catalogue: lib, or a test binary.
target_of() { if [ "$1" = lib ]; then echo --lib; else echo "--test $1"; fi; }
build() { # crate target log
    (cd "$tree" && timeout "$BUILD_LIMIT" $CARGO test -j "$JOBS" --no-run -p "$1" $(target_of "$2")) >"$3" 2>&1 9>&-
}
run_test() { # crate target test log
    (cd "$tree" && timeout "$TEST_LIMIT" $CARGO test -j "$JOBS" -p "$1" $(target_of "$2") -- "$3") >"$4" 2>&1 9>&-
}
# What a log says of a test: it passed, or it (and not the build, nor a crash) failed.
passed() { grep -Eq '^test result: ok\. [1-9]' "$1"; }
failed() { grep -Eq "^    ([a-z0-9_]+::)*$2\$" "$1" && grep -q '^test result: FAILED' "$1"; }

rows=$work/rows
table=$work/table
grep -F -- "$only" "$catalogue" | grep -v '^#' >"$rows"
# Bugs of the status page are caught in a browser.
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    if grep -q "${tab}browser${tab}" "$rows"; then echo "chromium and chromedriver are not installed: bugs of the status page are left out"; fi
    { grep -v "${tab}browser${tab}" "$rows" || true; } >"$rows.left"
    mv "$rows.left" "$rows"
fi
[ -s "$rows" ] || { echo "no bug of $catalogue matches '$only'" >&2; exit 1; }
: >"$table"
bad=0
say() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$table"; printf '%-34s %s\n' "$1" "$3"; }

# A list of patches that is not the directory's is no list.
for patch in e2e/planted/*.patch; do
    grep -q "^$(basename "$patch")$tab" "$catalogue" || { echo "$patch is not in $catalogue"; bad=1; }
done
write_page | cmp -s - "$page" || { echo "$page is not what $catalogue says: scripts/planted-bugs.sh --page"; bad=1; }

echo "without any bug, at $commit:"
cut -f2,3 "$rows" | sort -u | while IFS="$tab" read -r crate target; do
    if ! build "$crate" "$target" "$logs/build-$crate-$target.log"; then
        tail -n 20 "$logs/build-$crate-$target.log" >&2
        echo "$crate ($target) does not build without any bug" >&2
        exit 1
    fi
done
sort -u -t "$tab" -k2,4 "$rows" | while IFS="$tab" read -r _ crate target test _; do
    log=$logs/clean-$test.log
    if ! run_test "$crate" "$target" "$test" "$log" || ! passed "$log"; then
        tail -n 30 "$log" >&2
        echo "$test does not pass without any bug" >&2
        exit 1
    fi
done
echo "all $(cut -f4 "$rows" | sort -u | wc -l) tests pass"
echo
echo "with one bug at a time:"
while IFS="$tab" read -r patch crate target test _; do
    name=${patch%.patch}
    if ! planted_git apply -C1 "$root/e2e/planted/$patch" 2>"$logs/$name.apply.log"; then
        verdict="ERROR: the patch does not fit the tree"
    elif ! build "$crate" "$target" "$logs/$name.build.log"; then
        verdict="ERROR: does not build with the patch"
    elif run_test "$crate" "$target" "$test" "$logs/$name.log"; then
        verdict="NOT CAUGHT"
    elif failed "$logs/$name.log" "$test"; then
        verdict=caught
    else
        verdict="NOT CAUGHT: the test did not end"
    fi
    [ "$verdict" = caught ] || bad=1
    say "$name" "$test" "$verdict"
    clean_tree
done <"$rows"

echo
{ printf 'bug\ttest\tcaught\n'; sed "s/${tab}caught\$/${tab}yes/" "$table"; } |
    awk -F "$tab" '{ a[NR] = $1; b[NR] = $2; c[NR] = $3; if (length($1) > w) w = length($1); if (length($2) > v) v = length($2) }
        END { for (i = 1; i <= NR; i++) printf "%-" w "s | %-" v "s | %s\n", a[i], b[i], c[i] }'
echo
echo "$(grep -c "${tab}caught\$" "$table" || true) of $(wc -l <"$table") planted bugs caught"
exit "$bad"
