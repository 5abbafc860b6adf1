#!/usr/bin/env bash
# DVC: with cache.type "reflink,hardlink,copy" on a file system without reflinks, outputs stay full copies.
#
# Guess:  DVC tries the kinds of link in the order given, as its page on large datasets says: no reflinks here, so
#         hardlinks, and an output shares its bytes with the cache.
# Seen:   after `dvc repro` the output is a second copy. A plain copy counts as done as soon as "reflink" comes before
#         "hardlink" in the list, since a reflink cannot be told from a copy; whether the file system has reflinks is
#         not asked there. A later `dvc checkout --relink` does make the hardlink, so the same setting gives two
#         results. With "hardlink,copy" the output has two links from the start.
# With:   dvc 3.67.1, ext4, Python 3.11 (30 November 2026)
# Ours:   .dvc/config and flows/runtime/workspace.py say "hardlink,copy".
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
touch probe
if cp --reflink=always probe probe.clone 2>/dev/null; then
  echo "this file system has reflinks: nothing to see here (set TMPDIR to a folder on ext4)"
  exit 0
fi
python3 -m venv venv
venv/bin/pip install --quiet "dvc==3.67.1"
venv/bin/dvc --version

links_with() { # the number of links of an output, after repro and after checkout --relink
  rm -rf project && mkdir project && cd project
  ../venv/bin/dvc init --no-scm -q
  ../venv/bin/dvc config core.analytics false
  ../venv/bin/dvc config cache.type "$1"
  printf 'stages:\n  make:\n    cmd: mkdir -p out && head -c 300000 /dev/zero > out/zeros\n    outs: [out]\n' >dvc.yaml
  ../venv/bin/dvc repro -q
  made=$(stat -c %h out/zeros)
  ../venv/bin/dvc checkout --relink -q
  echo "$made $(stat -c %h out/zeros)"
  cd ..
}

with_reflink=$(links_with reflink,hardlink,copy)
without=$(links_with hardlink,copy)
echo "links of the output after repro, after checkout --relink:"
echo "  cache.type reflink,hardlink,copy: $with_reflink"
echo "  cache.type hardlink,copy:         $without"
[ "$with_reflink" = "1 2" ] && [ "$without" = "2 2" ]
